//! Joins items that change together into one whole: the parts of one source, or a kernel and its
//! initramfs.

use super::{Part, Parts, partition};

/// Parts joined to what changes together.
pub(super) struct Wholes {
    /// The positions of each whole's parts, ascending.
    pub(super) members: Vec<Vec<usize>>,
    /// The wholes, in the order that `runs` cuts. They share no causes.
    pub(super) parts: Parts,
}

impl Wholes {
    pub(super) fn of(parts: &Parts) -> Self {
        let mut members: Vec<Vec<usize>> = Vec::new();
        let mut of_cause: Vec<Option<usize>> = vec![None; parts.causes.len()];
        for (at, part) in parts.list.iter().enumerate() {
            let known = part.cause.and_then(|cause| of_cause[cause]);
            match known {
                Some(whole) => members[whole].push(at),
                None => {
                    if let Some(cause) = part.cause {
                        of_cause[cause] = Some(members.len());
                    }
                    members.push(vec![at]);
                }
            }
        }
        let list = members.iter().map(|members| {
            let size = members.iter().map(|&at| parts.list[at].size).sum();
            Part {
                key: parts.list[members[0]].key,
                ..Part::alone(size, parts.stay_of(members.iter().copied()))
            }
        });
        let list: Vec<Part> = list.collect();
        let order = partition::order(&list);
        Self {
            members: order.iter().map(|&at| members[at].clone()).collect(),
            parts: Parts {
                list: order.iter().map(|&at| list[at]).collect(),
                causes: Vec::new(),
            },
        }
    }
}
