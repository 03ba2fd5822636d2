//! What claimants say, kept in little memory: there is a claim for each entry of a tree.

use std::collections::HashMap;

use super::Component;

/// What one claimant says of an entry. `C` is a component, or the number of one, which takes less
/// memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Claim<C = Component> {
    /// It belongs to that package (its position in the database).
    Package(u32),
    /// It belongs to that component.
    Own(C),
}

/// A claim, and whether the entry was made on the system, not unpacked.
pub(super) struct Claimed<C = Component> {
    pub(super) owner: Claim<C>,
    pub(super) made: bool,
}

/// The claims of all entries.
pub(super) struct Claims {
    /// By entry, with components by their numbers.
    pub(super) entries: Vec<Claimed<u32>>,
    own: Vec<Component>,
    /// Where `own` has the last component of a name.
    by_name: HashMap<String, u32>,
}

impl Claims {
    /// None yet, and room for those of `count` entries.
    pub(super) fn for_entries(count: usize) -> Self {
        Self {
            entries: Vec::with_capacity(count),
            own: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// Takes the claim of the next entry.
    pub(super) fn push(&mut self, claimed: Claimed) {
        let owner = match claimed.owner {
            Claim::Package(at) => Claim::Package(at),
            Claim::Own(component) => Claim::Own(self.number(component)),
        };
        let made = claimed.made;
        self.entries.push(Claimed { owner, made });
    }

    /// The component of that number.
    pub(super) fn own(&self, at: u32) -> &Component {
        &self.own[at as usize]
    }

    fn number(&mut self, component: Component) -> u32 {
        let known = self.by_name.get(&component.name).copied();
        if let Some(at) = known.filter(|at| *self.own(*at) == component) {
            return at;
        }
        let at = self.own.len() as u32;
        self.by_name.insert(component.name.clone(), at);
        self.own.push(component);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(name: &str, chance: f64) -> Claimed {
        let component = Component {
            name: name.into(),
            chance,
            cause: None,
            interval: None,
        };
        Claimed {
            owner: Claim::Own(component),
            made: false,
        }
    }

    #[test]
    fn a_component_is_kept_once_however_many_entries_are_claimed_for_it() {
        let mut claims = Claims::for_entries(0);
        for (name, chance) in [("a", 0.2), ("b", 0.2), ("a", 0.2), ("a", 0.7), ("a", 0.7)] {
            claims.push(claimed(name, chance));
        }
        let owners = claims.entries.iter().map(|claim| claim.owner);
        let owners: Vec<Claim<u32>> = owners.collect();
        assert_eq!(owners, [0, 1, 0, 2, 2].map(Claim::Own));
        let chance = |at| claims.own(at).chance;
        assert_eq!([0, 1, 2].map(chance), [0.2, 0.2, 0.7]);
        assert!(size_of::<Claimed<u32>>() <= 12);
    }
}
