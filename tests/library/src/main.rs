//! Prints the layers that a root filesystem would have: their sizes in bytes, how likely each is to
//! change, and its components.

use std::num::NonZeroUsize;

use apt_ostree_helper::component::{Ownership, TreeFiles};
use apt_ostree_helper::dpkg::Database;
use apt_ostree_helper::plan::{Item, plan};
use apt_ostree_helper::tree::{Filter, scan};

fn main() -> anyhow::Result<()> {
    let rootfs = std::env::args().nth(1).unwrap_or_else(|| "/rootfs".into());
    let (tree, contents) = scan(
        rootfs.as_str().into(),
        &Filter::default(),
        NonZeroUsize::MIN,
    )?;
    let (tree, contents) = (&tree, &contents);
    let files = TreeFiles { tree, contents };
    let database = Database::load(&files, None)?;
    let ownership = Ownership::of_tree(tree, database.as_ref(), &files, None)?;
    let item = |component: &apt_ostree_helper::component::Component| Item {
        name: component.name.clone(),
        size: 0,
        chance: component.chance,
        cause: component.cause.clone(),
    };
    let mut items: Vec<Item> = ownership.components().iter().map(item).collect();
    for id in tree.ids() {
        items[ownership.owner(id).index()].size += tree.entry(id).size;
    }
    for layer in plan(&items, NonZeroUsize::MIN.saturating_add(63), None).layers {
        let names = layer.items.iter().map(|at| items[*at].name.as_str());
        let names = names.collect::<Vec<_>>().join(" ");
        println!("{:>12} {:.3} {names}", layer.size, layer.chance);
    }
    Ok(())
}
