//! A queue that serves its owners round robin: deficit round robin (Shreedhar and Varghese, 1996), in which an owner that
//! had no item goes first (as in RFC 8290). An owner is a client, or an aggregate type.
//!
//! Each item has a cost. In its turn, an owner is served items up to a quantum of cost, and saves what an item needs
//! beyond that over several turns. So owners get equal parts of the cost, whatever the size of their items.
//!
//! An owner that had no item is served its first quantum before the others. It then takes its turns with them, even
//! without an item, until its next turn. So few and small items wait for no others, and no owner can go first all the time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::ops::ControlFlow;

/// A queue of items, each of an owner.
pub struct FairQueue<K, T> {
    quantum: usize,
    owners: HashMap<K, ItemsOfOwner<T>>,
    /// The owners that have not been served their first quantum, in the order of their first items.
    new: VecDeque<K>,
    /// The other owners, in the order of their turns. Some have no item any more.
    old: VecDeque<K>,
    length: usize,
}

struct ItemsOfOwner<T> {
    items: VecDeque<(T, usize)>,
    /// The cost that the owner may be served before the next owner has its turn.
    deficit: usize,
}

impl<K: Clone + Eq + Hash, T> FairQueue<K, T> {
    /// Creates an empty queue. An owner is served this cost in each turn.
    pub fn new(quantum: usize) -> Self {
        Self { quantum, owners: HashMap::new(), new: VecDeque::new(), old: VecDeque::new(), length: 0 }
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether the queue has no item.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the number of items of an owner.
    pub fn len_of(&self, owner: &K) -> usize {
        self.owners.get(owner).map_or(0, |queued| queued.items.len())
    }

    /// Adds an item of an owner, behind the owner's other items.
    pub fn push(&mut self, owner: K, item: T, cost: usize) {
        self.length += 1;
        match self.owners.get_mut(&owner) {
            Some(queued) => queued.items.push_back((item, cost)),
            None => {
                let queued = ItemsOfOwner { items: VecDeque::from([(item, cost)]), deficit: self.quantum };
                self.owners.insert(owner.clone(), queued);
                self.new.push_back(owner);
            }
        }
    }

    /// Removes the next item.
    pub fn pop(&mut self) -> Option<T> {
        self.next(&|_| true, &|_| true).map(|(_, item)| item)
    }

    /// Removes the next item if it is accepted. One that is not accepted remains the next one of its owner.
    pub fn pop_if(&mut self, accepts: impl Fn(&T) -> bool) -> Option<T> {
        self.next(&|_| true, &accepts).map(|(_, item)| item)
    }

    /// Removes the next item of an owner that may be served.
    pub fn pop_of(&mut self, may_be_served: impl Fn(&K) -> bool) -> Option<(K, T)> {
        self.next(&may_be_served, &|_| true)
    }

    fn next(&mut self, may_be_served: &dyn Fn(&K) -> bool, accepts: &dyn Fn(&T) -> bool) -> Option<(K, T)> {
        let next = match self.next_of_new(may_be_served, accepts) {
            ControlFlow::Break(next) => next,
            ControlFlow::Continue(()) => self.next_of_old(may_be_served, accepts),
        };
        if self.length == 0 {
            self.owners.clear();
            self.new.clear();
            self.old.clear();
        }
        next
    }

    /// Searches the new owners. Breaks with the next item, or with `None` if it is not accepted.
    fn next_of_new(
        &mut self,
        may_be_served: &dyn Fn(&K) -> bool,
        accepts: &dyn Fn(&T) -> bool,
    ) -> ControlFlow<Option<(K, T)>> {
        for _ in 0..self.new.len() {
            let Some(owner) = self.new.pop_front() else { break };
            if !may_be_served(&owner) {
                self.new.push_back(owner);
                continue;
            }
            match self.take(&owner, accepts) {
                // The first quantum is used up, or the owner's only item was taken. The owner takes its turns from now on.
                Taken::Nothing => self.end_turn(owner),
                Taken::Item(item) => {
                    self.new.push_front(owner.clone());
                    return ControlFlow::Break(Some((owner, item)));
                }
                Taken::NotAccepted => {
                    self.new.push_front(owner);
                    return ControlFlow::Break(None);
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Searches the other owners. Returns the next item, if it is accepted.
    fn next_of_old(&mut self, may_be_served: &dyn Fn(&K) -> bool, accepts: &dyn Fn(&T) -> bool) -> Option<(K, T)> {
        let mut passed = 0;
        while passed < self.old.len() {
            let owner = self.old.pop_front()?;
            if self.len_of(&owner) == 0 {
                self.owners.remove(&owner);
                continue;
            }
            if !may_be_served(&owner) {
                passed += 1;
                self.old.push_back(owner);
                continue;
            }
            match self.take(&owner, accepts) {
                Taken::Nothing => {
                    self.end_turn(owner);
                    // Owners that may not be served are passed over again.
                    passed = 0;
                }
                Taken::Item(item) => {
                    self.old.push_front(owner.clone());
                    return Some((owner, item));
                }
                Taken::NotAccepted => {
                    self.old.push_front(owner);
                    return None;
                }
            }
        }
        None
    }

    /// Ends the turn of an owner: its next one begins with a larger deficit.
    fn end_turn(&mut self, owner: K) {
        if let Some(queued) = self.owners.get_mut(&owner) {
            queued.deficit += self.quantum;
        }
        self.old.push_back(owner);
    }

    /// Removes the owner's first item, if its deficit suffices, or if no other owner has an item.
    fn take(&mut self, owner: &K, accepts: &dyn Fn(&T) -> bool) -> Taken<T> {
        let Some(queued) = self.owners.get_mut(owner) else { return Taken::Nothing };
        let is_alone = queued.items.len() == self.length;
        match queued.items.front() {
            Some((_, cost)) if !is_alone && *cost > queued.deficit => return Taken::Nothing,
            Some((item, _)) if !accepts(item) => return Taken::NotAccepted,
            _ => {}
        }
        let Some((item, cost)) = queued.items.pop_front() else { return Taken::Nothing };
        queued.deficit = queued.deficit.saturating_sub(cost);
        self.length -= 1;
        Taken::Item(item)
    }
}

/// The result of taking the first item of an owner.
enum Taken<T> {
    Item(T),
    /// The owner has no item, or its deficit does not suffice.
    Nothing,
    NotAccepted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &mut FairQueue<&'static str, &'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn owners_are_served_in_turn_and_their_own_items_in_order() {
        let mut queue = FairQueue::new(1);
        for item in ["a1", "a2", "a3"] {
            queue.push("a", item, 1);
        }
        queue.push("b", "b1", 1);
        queue.push("c", "c1", 1);
        queue.push("b", "b2", 1);
        assert_eq!(queue.len(), 6);
        assert_eq!(order(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(queue.is_empty() && queue.owners.is_empty() && queue.old.is_empty());
    }

    #[test]
    fn large_items_do_not_delay_small_ones_of_another_owner() {
        let mut queue = FairQueue::new(10);
        for item in ["large 1", "large 2"] {
            queue.push("a", item, 100);
        }
        for item in ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12"] {
            queue.push("b", item, 10);
        }
        let order = order(&mut queue);
        let place = |item: &str| order.iter().position(|served| *served == item).expect("it is served");
        // Both owners are served the same cost: a large item is served for ten small ones.
        assert!((8..=11).contains(&place("large 1")), "{order:?}");
        assert!(place("large 2") > place("s12"), "{order:?}");
    }

    #[test]
    fn an_owner_alone_is_served_at_once_and_one_that_may_not_be_served_is_passed_over() {
        let mut queue = FairQueue::new(1);
        queue.push("a", "a1", 1_000);
        assert_eq!(queue.pop(), Some("a1"));
        queue.push("a", "a2", 1);
        queue.push("b", "b1", 1);
        assert_eq!(queue.pop_of(|owner| *owner != "a"), Some(("b", "b1")));
        assert_eq!(queue.pop_of(|owner| *owner != "a"), None);
        assert_eq!(queue.pop(), Some("a2"));
        assert_eq!(queue.pop(), None);
    }
    #[test]
    fn an_owner_that_had_no_item_goes_first_but_not_all_the_time() {
        let mut queue = FairQueue::new(10);
        for n in 0..3 {
            queue.push("a", ["a1", "a2", "a3"][n], 100);
        }
        assert_eq!(queue.pop(), Some("a1"));
        queue.push("b", "b1", 1);
        assert_eq!(queue.pop(), Some("b1"));
        // An item that is not accepted remains, and another owner still goes before it.
        assert_eq!(queue.pop_if(|item| *item != "a2"), None);
        queue.push("c", "c1", 1);
        queue.push("b", "b2", 1);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some("c1"), Some("b2"), Some("a2")));
        // An owner whose next item arrives at once takes its turn.
        let mut order = Vec::new();
        for _ in 0..30 {
            queue.push("d", "d", 10);
            order.push(queue.pop().expect("an item"));
        }
        assert!(order.contains(&"a3"), "{order:?}");
    }
}
