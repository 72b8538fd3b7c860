//! The climb from child to parent, shared by all that asks below what a process stands.

/// The place at which the parent of a process is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent<P> {
    /// Among those to be placed.
    At(usize),
    /// Elsewhere, and the place that its children have from it.
    Elsewhere(P),
}

/// The places of processes in a tree of which each knows its parent alone, in buffers that are kept from one time to
/// the next.
#[derive(Debug)]
pub(crate) struct Climb<P> {
    marks: Vec<Mark<P>>,
    climbed: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark<P> {
    Unknown,
    /// On the way up from the process in question.
    Climbed,
    Placed(P),
}

impl<P: Copy> Climb<P> {
    /// Places `count` processes: `parent` says where the parent of each is found, and `below` what place one has whose
    /// parent has this one. Those of a circle, which processes that are read one after the other can form, have the
    /// place `lost` from it.
    ///
    /// From each process the climb goes up until one is placed, and the places are handed down on the way back. So each
    /// is climbed past once, however deep the tree, and no depth is a depth of calls.
    pub(crate) fn place(
        &mut self,
        count: usize,
        lost: P,
        parent: impl Fn(usize) -> Parent<P>,
        below: impl Fn(usize, P) -> P,
    ) {
        self.marks.clear();
        self.marks.resize(count, Mark::Unknown);
        for start in 0..count {
            let mut index = start;
            let mut place = loop {
                match self.marks[index] {
                    Mark::Placed(place) => break place,
                    Mark::Climbed => break lost,
                    Mark::Unknown => {}
                }
                self.marks[index] = Mark::Climbed;
                self.climbed.push(index);
                match parent(index) {
                    Parent::At(parent) => index = parent,
                    Parent::Elsewhere(place) => break place,
                }
            };
            while let Some(index) = self.climbed.pop() {
                place = below(index, place);
                self.marks[index] = Mark::Placed(place);
            }
        }
    }

    /// The place of one of those that were placed last; `None` beyond them.
    pub(crate) fn get(&self, index: usize) -> Option<P> {
        match self.marks.get(index) {
            Some(Mark::Placed(place)) => Some(*place),
            _ => None,
        }
    }
}

impl<P> Default for Climb<P> {
    fn default() -> Climb<P> {
        Climb { marks: Vec::new(), climbed: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The depth of each below a parent that is elsewhere; `None` is lost.
    fn depths(climb: &mut Climb<Option<usize>>, parents: &[Option<usize>]) -> Vec<Option<usize>> {
        let parent = |index: usize| parents[index].map_or(Parent::Elsewhere(Some(0)), Parent::At);
        climb.place(parents.len(), None, parent, |_, above| above.map(|depth| depth + 1));
        (0..parents.len()).map(|index| climb.get(index).unwrap()).collect()
    }

    #[test]
    fn a_place_is_handed_down_from_parent_to_child() {
        let mut climb = Climb::default();
        assert_eq!(depths(&mut climb, &[Some(2), None, Some(1), Some(2)]), [Some(3), Some(1), Some(2), Some(3)]);
        assert_eq!(climb.get(4), None);
    }

    #[test]
    fn those_of_a_circle_and_below_it_are_lost_and_nobody_else() {
        let parents = [Some(1), Some(2), Some(0), Some(1), None, Some(5)];
        assert_eq!(depths(&mut Climb::default(), &parents), [None, None, None, None, Some(1), None]);
    }

    #[test]
    fn a_very_deep_tree_is_no_trouble() {
        let parents: Vec<_> = (0..100_000_usize).map(|index| index.checked_sub(1)).collect();
        assert_eq!(depths(&mut Climb::default(), &parents).last(), Some(&Some(100_000)));
    }

    proptest! {
        #[test]
        fn the_climb_agrees_with_going_up_from_each(
            parents in prop::collection::vec(prop::option::of(0..20_usize), 20),
        ) {
            let depth = |start: usize| {
                let mut ancestors = std::iter::successors(Some(start), |index| parents[*index]);
                let depth = ancestors.by_ref().take(parents.len()).count();
                // Longer than there are processes: a circle.
                ancestors.next().is_none().then_some(depth)
            };
            let expected: Vec<_> = (0..parents.len()).map(depth).collect();
            let mut climb = Climb::default();
            for _ in 0..2 {
                prop_assert_eq!(&depths(&mut climb, &parents), &expected);
            }
        }
    }
}
