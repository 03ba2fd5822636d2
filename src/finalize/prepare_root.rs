//! `prepare-root.conf`, which tells the initramfs how to mount the deployment
//! (ostree-prepare-root(1)). It is copied into the initramfs, so it must be there first.

use anyhow::Result;

use super::change::Plan;
use super::root::Kind;
use super::system::System;

/// Where images have it.
pub const PATH: &str = "usr/lib/ostree/prepare-root.conf";
/// The administrator's own, which comes first.
const LOCAL: &str = "etc/ostree/prepare-root.conf";
/// The program that reads it, and what it says where it is built without composefs.
const PROGRAM: &str = "usr/lib/ostree/ostree-prepare-root";
const WITHOUT: &[u8] = b"composefs: enabled at runtime, but support is not compiled in";
const SETTING: &[u8] = b"prepare-root.composefs";

/// Writes it where there is none.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let mut plan = Plan::new(system.root);
    if system.kernel()?.is_none() {
        return Ok(plan);
    }
    for path in [PATH, LOCAL] {
        if system.root.kind(path)? == Kind::File {
            return Ok(plan);
        }
    }
    let program = system.root.read(PROGRAM)?.unwrap_or_default();
    let has = |text: &[u8]| program.windows(text.len()).any(|part| part == text);
    let knows_composefs = has(SETTING) && !has(WITHOUT);
    // Without it 'true' ends in an emergency shell; 'maybe' boots, and bootc's lint takes it.
    let enabled = if knows_composefs { "true" } else { "maybe" };
    let text = format!("[composefs]\nenabled = {enabled}\n\n[sysroot]\nreadonly = true\n");
    plan.write(
        PATH,
        text,
        "the initramfs mounts the deployment as this says",
    )?;
    Ok(plan)
}
