//! Descendants that the mount does not show, beside those that are listed.

use super::{Known, Tracker, REREAD_EVERY};
use crate::readers::procfs::concealed::{may_conceal, Found};
use crate::readers::procfs::descendants::index_of_key;
use crate::readers::procfs::process_table::read_process;
use crate::readers::procfs::ProcRoot;
use crate::vocabulary::Error;

impl Tracker {
    /// Adds the descendants that are concealed, if any may be: `any_concealed`, or the mount says so.
    pub(super) fn find_concealed(&mut self, root: ProcRoot<'_>, own: u32, any_concealed: bool) -> Result<(), Error> {
        // A mount can be changed at any time. What it conceals then of those that are known is noticed at once.
        if self.conceals.is_none() || self.checks % REREAD_EVERY == 0 {
            self.conceals = Some(may_conceal(root));
        }
        if any_concealed {
            self.conceals = Some(true);
        }
        if self.conceals == Some(false) {
            return Ok(());
        }
        let own = read_process(root, own)?.ok_or_else(|| root.without_us(own))?;
        let Tracker { family, fresh, search, .. } = self;
        let listed = fresh.len();
        let found = search.run(root, own, true, |pid| {
            let known = |list: &[Known]| index_of_key(list, pid, Known::pid).map(|index| list[index]);
            let shown = known(family).filter(|known| !known.is_concealed).or_else(|| known(&fresh[..listed]));
            shown.map(|known| known.process)
        })?;
        for &Found { process, is_concealed } in found {
            match index_of_key(family, process.pid, Known::pid) {
                Some(index) => {
                    let known = &mut family[index];
                    known.is_concealed = is_concealed;
                    if is_concealed {
                        // The rest is as it was when it was last seen.
                        known.process.parent = process.parent;
                    } else {
                        known.process = process;
                    }
                }
                None => fresh.push(Known { is_concealed, ..Known::new(process, 0) }),
            }
        }
        fresh.sort_unstable_by_key(Known::pid);
        Ok(())
    }
}
