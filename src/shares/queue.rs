//! A queue that serves its owners round robin: deficit round robin (Shreedhar and Varghese, 1996). An owner is a client,
//! or an aggregate type.
//!
//! Each item has a cost. In its turn, an owner is served items up to a quantum of cost, and saves what an item needs
//! beyond that over several turns. So owners get equal parts of the cost, whatever the size of their items, and an item
//! of an owner with few items waits only for one quantum of each other owner.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A queue of items, each of an owner.
pub struct FairQueue<K, T> {
    quantum: usize,
    owners: HashMap<K, ItemsOfOwner<T>>,
    /// The owners that have items, in the order of their turns.
    turns: VecDeque<K>,
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
        Self { quantum, owners: HashMap::new(), turns: VecDeque::new(), length: 0 }
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
                self.turns.push_back(owner);
            }
        }
    }

    /// Removes the next item.
    pub fn pop(&mut self) -> Option<T> {
        self.pop_of(|_| true).map(|(_, item)| item)
    }

    /// Removes the next item of an owner that may be served.
    pub fn pop_of(&mut self, may_be_served: impl Fn(&K) -> bool) -> Option<(K, T)> {
        let mut passed = 0;
        while passed < self.turns.len() {
            let owner = self.turns.front()?.clone();
            let is_alone = self.turns.len() == 1;
            let queued = self.owners.get_mut(&owner)?;
            if !may_be_served(&owner) {
                passed += 1;
                self.turns.rotate_left(1);
                continue;
            }
            let cost = queued.items.front()?.1;
            if cost > queued.deficit && !is_alone {
                // The turn ends, and the next one begins with a larger deficit. Owners that may not be served are passed
                // over again.
                queued.deficit += self.quantum;
                passed = 0;
                self.turns.rotate_left(1);
                continue;
            }
            queued.deficit = queued.deficit.saturating_sub(cost);
            let (item, _) = queued.items.pop_front()?;
            self.length -= 1;
            if queued.items.is_empty() {
                self.owners.remove(&owner);
                self.turns.pop_front();
            }
            return Some((owner, item));
        }
        None
    }
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
        assert!(queue.is_empty() && queue.owners.is_empty() && queue.turns.is_empty());
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
}
