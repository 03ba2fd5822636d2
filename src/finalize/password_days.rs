//! The day on which a password was last changed, which is the day of the build for every account
//! that packages make (shadow(5), third field). Where no password can be used it tells nothing, and
//! is left empty.

use anyhow::Result;

use super::change::Plan;
use super::system::System;
use super::write::Owner;

const SHADOW: &str = "etc/shadow";

/// Empties the field of locked accounts.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let mut plan = Plan::new(system.root);
    let Some(bytes) = system.root.read(SHADOW)? else {
        return Ok(plan);
    };
    // What is not text is not understood.
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(plan);
    };
    let new = without_days(&text);
    if let (true, Some(stat)) = (new != text, system.root.stat(SHADOW)?) {
        let why = "the day of the build, of accounts that no password opens";
        plan.replace(
            SHADOW,
            new.into_bytes(),
            Owner::of(&stat),
            Some(super::byte_code::modified(&stat)),
            why,
        );
    }
    Ok(plan)
}

fn without_days(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let mut fields: Vec<&str> = line.split(':').collect();
        let is_locked = fields.get(1).is_some_and(|p| p.starts_with(['!', '*']));
        if is_locked && fields.len() == 9 {
            fields[2] = "";
        }
        fields.join(":")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_locked_accounts_lose_the_day() {
        let text = "root:*:20418:0:99999:7:::\nme:$y$abc:20418:0:99999:7:::\nsshd:!:20418::::::\nodd:*:1\n";
        let new = "root:*::0:99999:7:::\nme:$y$abc:20418:0:99999:7:::\nsshd:!:::::::\nodd:*:1\n";
        assert_eq!(without_days(text), new);
        assert_eq!(without_days(new), new);
    }
}
