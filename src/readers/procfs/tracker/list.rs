//! The listing of `/proc`: entries that are there as before are kept, and new ones are read.

use super::{has_its_turn, Known, Tracker};
use crate::readers::procfs::descendants::index_of_key;
use crate::readers::procfs::process_table::read_process;
use crate::readers::procfs::{stat, ProcRoot};
use crate::sys::file::stack_path;
use crate::sys::process;
use crate::vocabulary::Error;

/// An entry of `/proc`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    pid: u32,
    inode: u64,
    known: bool,
}

impl Tracker {
    /// Lists `/proc`: keeps the processes that are there as before, and reads the new ones.
    pub(super) fn list(&mut self, root: ProcRoot<'_>, own: u32) -> Result<(), Error> {
        self.fresh.clear();
        self.links = links(root)?;
        self.list_entries(root)?;
        let index = index_of_key(&self.listed, own, |listed| listed.pid).ok_or_else(|| root.without_us(own))?;
        self.listed[index].known = true;

        let mut index = 0;
        self.strangers.retain(|_| {
            index += 1;
            !has_its_turn(index, self.checks)
        });
        let mut any_concealed = false;
        keep_listed(&mut self.strangers, &mut self.listed, |_| false);
        keep_listed(&mut self.family, &mut self.listed, |unlisted| {
            let exists = process::exists(unlisted.pid());
            any_concealed |= exists;
            exists
        });
        for listed in self.listed.iter().filter(|listed| !listed.known) {
            match read_process(root, listed.pid)? {
                Some(process) => self.fresh.push(Known::new(process, listed.inode)),
                None => any_concealed |= process::exists(listed.pid),
            }
        }
        self.find_concealed(root, own, any_concealed)
    }

    fn list_entries(&mut self, root: ProcRoot<'_>) -> Result<(), Error> {
        let listing = match &mut self.listing {
            Some(listing) => listing,
            closed => closed.insert(root.directory.list().map_err(|error| root.unlisted(error))?),
        };
        let listed = &mut self.listed;
        listed.clear();
        let visited = listing.visit(|entry| {
            let pid = stat::pid(entry.name.to_bytes());
            listed.extend(pid.map(|pid| Listed { pid, inode: entry.inode, known: false }));
        });
        visited.map_err(|error| root.unlisted(error))?;
        // The kernel lists them in this order already.
        listed.sort_unstable_by_key(|listed| listed.pid);
        Ok(())
    }
}

/// Keeps those that are listed under their inode, and marks the entries; and those that are not listed and of which
/// `is_concealed` says that they exist.
fn keep_listed(known: &mut Vec<Known>, listed: &mut [Listed], mut is_concealed: impl FnMut(&Known) -> bool) {
    let mut listed = listed.iter_mut().peekable();
    known.retain_mut(|known| {
        while listed.next_if(|listed| listed.pid < known.process.pid).is_some() {}
        match listed.peek_mut() {
            Some(listed) if listed.pid == known.process.pid && listed.inode == known.inode => {
                listed.known = true;
                known.is_concealed = false;
                true
            }
            // Its number was given away again.
            Some(listed) if listed.pid == known.process.pid => false,
            _ => {
                known.is_concealed = is_concealed(known);
                known.is_concealed
            }
        }
    });
}

/// The number of links of `/proc`: each process on the machine is one.
pub(super) fn links(root: ProcRoot<'_>) -> Result<u64, Error> {
    let status = stack_path(&mut [0; 2], format_args!(".")).and_then(|path| root.directory.status(path));
    Ok(status.map_err(|error| root.unlisted(error))?.links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::fixture::process;
    use crate::readers::procfs::tracker::tests::{known, pids};

    #[test]
    fn whoever_is_listed_under_another_inode_is_another() {
        let mut list = [2, 5, 6, 9].map(|pid| known(process(pid, 1))).to_vec();
        let listed = [(1, 1), (2, 1002), (5, 77), (8, 1), (9, 1009), (10, 1)];
        let mut listed = listed.map(|(pid, inode)| Listed { pid, inode, known: false });
        keep_listed(&mut list, &mut listed, |unlisted| unlisted.pid() == 5);
        assert_eq!(pids(&list), [2, 9], "5 is listed");
        assert_eq!(listed.map(|listed| listed.known), [false, true, false, false, true, false]);
        keep_listed(&mut list, &mut [], |unlisted| unlisted.pid() == 9);
        assert_eq!(pids(&list), [9], "it is concealed");
        assert!(list[0].is_concealed);
    }
}
