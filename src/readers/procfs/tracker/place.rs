//! The place of each process: below us, or a stranger's.

use super::{Known, Tracker};
use crate::readers::procfs::climb::Parent;
use crate::readers::procfs::descendants::{index_of_key, Standing};
use crate::readers::procfs::process_table::read_process;
use crate::readers::procfs::stat::Process;
use crate::readers::procfs::ProcRoot;
use crate::sys::child::{self, Child};
use crate::vocabulary::Error;

impl Tracker {
    /// Divides those that descended from us before, and those that are new, into descendants and strangers. Returns
    /// `false` when that is not possible, because this process has moved to another time namespace: there, all that is
    /// known started at another time.
    pub(super) fn place(&mut self, root: ProcRoot<'_>, own: u32, walked: bool) -> Result<bool, Error> {
        let own_process = read_process(root, own)?.ok_or_else(|| root.without_us(own))?;
        let earlier = self.own.replace(own_process);
        if earlier.is_some_and(|earlier| earlier.start_ticks != own_process.start_ticks) {
            return Ok(false);
        }
        merge(&mut self.family, &self.fresh);
        // Those known from the last listing may be gone by now.
        let strangers: &[Known] = if walked { &[] } else { &self.strangers };
        read_orphans_again(root, &mut self.family, strangers, &own_process)?;

        let family = &self.family;
        self.placing.place(family.len(), |index| find_parent(family, strangers, &own_process, &family[index].process));
        let mut index = 0;
        let (placing, new_strangers) = (&self.placing, &mut self.new_strangers);
        new_strangers.clear();
        self.family.retain(|known| {
            let standing = placing.standing(index);
            index += 1;
            // A lost one, and one that was not listed, is not remembered: it will be read again.
            if standing == Standing::Stranger && known.inode != 0 {
                new_strangers.push(*known);
            }
            standing == Standing::Descendant
        });
        merge(&mut self.strangers, new_strangers);
        Ok(true)
    }
}

/// Adds the processes of one list to another. Both are ascending by process id, and have none in common.
fn merge(list: &mut Vec<Known>, new: &[Known]) {
    let mut old = list.len();
    let mut added = new.len();
    list.extend_from_slice(new);
    // From the back, so that nothing is overwritten before it has moved.
    while old > 0 && added > 0 {
        let last = if list[old - 1].pid() > new[added - 1].pid() {
            old -= 1;
            list[old]
        } else {
            added -= 1;
            new[added]
        };
        list[old + added] = last;
    }
    list[..added].copy_from_slice(&new[..added]);
}

/// Reads those again that claim a parent which has ended, or is not there: they have another one by now.
fn read_orphans_again(
    root: ProcRoot<'_>,
    family: &mut Vec<Known>,
    strangers: &[Known],
    own: &Process,
) -> Result<(), Error> {
    let mut any_gone = false;
    for index in 0..family.len() {
        let orphan = family[index].process;
        let has_fresh_parent = family[index].has_fresh_parent;
        let is_orphan = match find_parent(family, strangers, own, &orphan) {
            // A parent from before that is new now is another one, which was given the number of the dead.
            Parent::At(parent) => {
                let Known { process: parent, is_new, .. } = &family[parent];
                parent.is_zombie() || parent.is_gone() || (*is_new && !has_fresh_parent)
            }
            Parent::Elsewhere(standing) => standing == Standing::Lost,
        };
        if is_orphan {
            match read_process(root, orphan.pid)? {
                Some(process) => {
                    family[index].process = process;
                    family[index].is_concealed = false;
                }
                // Not shown, but ours to wait for.
                None if child::find(orphan.pid) != Child::Unknown => {
                    family[index].process.parent = own.pid;
                    family[index].is_concealed = true;
                }
                None => {
                    family[index].process.group = None;
                    any_gone = true;
                }
            }
        }
    }
    if any_gone {
        family.retain(|known| !known.process.is_gone());
    }
    Ok(())
}

/// The place of the parent that a process claims. A process that started after it is not its parent: it is a stranger
/// that was given the number of the dead one.
fn find_parent(family: &[Known], strangers: &[Known], own: &Process, child: &Process) -> Parent<Standing> {
    let older = |parent: &Process| parent.start_ticks <= child.start_ticks;
    if child.parent == 0 {
        return Parent::Elsewhere(Standing::Stranger);
    }
    if child.parent == own.pid && older(own) {
        return Parent::Elsewhere(Standing::Descendant);
    }
    let in_family = index_of_key(family, child.parent, Known::pid).filter(|&index| older(&family[index].process));
    if let Some(index) = in_family {
        return Parent::At(index);
    }
    let stranger = index_of_key(strangers, child.parent, Known::pid);
    match stranger.filter(|&index| older(&strangers[index].process)) {
        Some(_) => Parent::Elsewhere(Standing::Stranger),
        None => Parent::Elsewhere(Standing::Lost),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::readers::fixture::{process, Line};
    use crate::readers::procfs::tracker::tests::{known, pids};

    #[test]
    fn a_parent_is_looked_for_among_those_who_could_be_it() {
        let own = known(process(7, 1).started(7)).process;
        let family = [known(process(8, 7).started(8)), known(process(20, 8).started(20))];
        let strangers = [known(process(1, 0).started(1)), known(process(30, 1).started(30))];
        let parent = |child: Line| find_parent(&family, &strangers, &own, &known(child).process);
        assert_eq!(parent(process(40, 7)), Parent::Elsewhere(Standing::Descendant));
        assert_eq!(parent(process(40, 20)), Parent::At(1));
        assert_eq!(parent(process(40, 30)), Parent::Elsewhere(Standing::Stranger));
        assert_eq!(parent(process(40, 0)), Parent::Elsewhere(Standing::Stranger));
        // There is nobody, or somebody who started later than the supposed child.
        for gone in
            [process(40, 35), process(40, 30).started(29), process(40, 20).started(19), process(40, 7).started(6)]
        {
            assert_eq!(parent(gone), Parent::Elsewhere(Standing::Lost));
        }
    }

    proptest! {
        #[test]
        fn merging_is_appending_and_sorting(
            all in prop::collection::btree_map(1..500_u32, any::<bool>(), 0..60),
        ) {
            let of = |wanted: bool| -> Vec<Known> {
                let chosen = all.iter().filter(|(_, new)| **new == wanted);
                chosen.map(|(pid, _)| known(process(*pid, 1))).collect()
            };
            let mut list = of(false);
            merge(&mut list, &of(true));
            prop_assert_eq!(pids(&list), all.keys().copied().collect::<Vec<_>>());
        }
    }
}
