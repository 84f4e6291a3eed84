//! An ordered map from u64 to u64: a treap whose priorities are hashes of the keys, so that its
//! shape depends on what it holds and not on how it came to hold it.

use vista::{Backend, Error, Ptr, Segment, Transaction, persistent};

persistent! {
    /// The map itself; a program keeps its place in the root of a segment.
    pub struct Map {
        pub root: Ptr<Node>,
        pub len: u64,
    }

    pub struct Node {
        pub key: u64,
        pub value: u64,
        pub left: Ptr<Node>,
        pub right: Ptr<Node>,
    }
}

/// The operations, each inside a transaction of the caller's.
pub struct Handle {
    pub map: Ptr<Map>,
    pub segment: Segment,
}

impl Handle {
    /// Finds the map of a segment, or makes one.
    pub fn open<B: Backend>(
        tx: &mut Transaction<'_, B>,
        segment: Segment,
    ) -> Result<Handle, Error> {
        let map = match tx.root(segment)? {
            Some(map) => map,
            None => {
                let map = tx.alloc(
                    segment,
                    Map {
                        root: Ptr::NULL,
                        len: 0,
                    },
                )?;
                tx.set_root(segment, map)?;
                map
            }
        };
        Ok(Handle { map, segment })
    }

    pub fn len<B: Backend>(&self, tx: &Transaction<'_, B>) -> Result<u64, Error> {
        Ok(tx.get(self.map)?.len)
    }

    pub fn get<B: Backend>(&self, tx: &Transaction<'_, B>, key: u64) -> Result<Option<u64>, Error> {
        let mut at = tx.get(self.map)?.root;
        while let Some(node) = at.non_null() {
            let node = tx.get(node)?;
            if node.key == key {
                return Ok(Some(node.value));
            }
            at = if key < node.key {
                node.left
            } else {
                node.right
            };
        }
        Ok(None)
    }

    /// Adds a key that is not there.
    pub fn insert<B: Backend>(
        &self,
        tx: &mut Transaction<'_, B>,
        key: u64,
        value: u64,
    ) -> Result<(), Error> {
        let Map { mut root, len } = *tx.get(self.map)?;
        let mut link = None;
        while let Some(node) = root.non_null() {
            let found = *tx.get(node)?;
            if priority(found.key) < priority(key) {
                break;
            }
            let goes_left = key < found.key;
            link = Some((node, goes_left));
            root = if goes_left { found.left } else { found.right };
        }
        let (left, right) = split(tx, root, key)?;
        let node = tx.alloc(
            self.segment,
            Node {
                key,
                value,
                left,
                right,
            },
        )?;
        self.put_link(tx, link, node)?;
        tx.get_mut(self.map)?.len = len + 1;
        Ok(())
    }

    /// Removes a key and returns its value.
    pub fn remove<B: Backend>(
        &self,
        tx: &mut Transaction<'_, B>,
        key: u64,
    ) -> Result<Option<u64>, Error> {
        let Map { root, len } = *tx.get(self.map)?;
        let (mut at, mut link) = (root, None);
        while let Some(node) = at.non_null() {
            let found = *tx.get(node)?;
            if found.key == key {
                let below = merge(tx, found.left, found.right)?;
                self.put_link(tx, link, below)?;
                tx.free(node)?;
                tx.get_mut(self.map)?.len = len - 1;
                return Ok(Some(found.value));
            }
            let goes_left = key < found.key;
            link = Some((node, goes_left));
            at = if goes_left { found.left } else { found.right };
        }
        Ok(None)
    }

    /// All pairs in order of their keys; an error if the tree is none.
    pub fn pairs<B: Backend>(&self, tx: &Transaction<'_, B>) -> Result<Vec<(u64, u64)>, Error> {
        let Map { root, len } = *tx.get(self.map)?;
        let (mut pairs, mut path, mut at) = (Vec::new(), Vec::new(), root);
        loop {
            while let Some(node) = at.non_null() {
                path.push(node);
                if path.len() as u64 > len {
                    return Err(Error::Aborted("inconsistent: the tree has a cycle".into()));
                }
                at = tx.get(node)?.left;
            }
            let Some(node) = path.pop() else { break };
            let node = tx.get(node)?;
            pairs.push((node.key, node.value));
            at = node.right;
        }
        if pairs.len() as u64 != len || !pairs.is_sorted_by(|one, next| one.0 < next.0) {
            let what = format!(
                "inconsistent: {} pairs, {len} counted, or no order",
                pairs.len()
            );
            return Err(Error::Aborted(what));
        }
        Ok(pairs)
    }

    fn put_link<B: Backend>(
        &self,
        tx: &mut Transaction<'_, B>,
        link: Option<(Ptr<Node>, bool)>,
        to: Ptr<Node>,
    ) -> Result<(), Error> {
        match link {
            None => tx.get_mut(self.map)?.root = to,
            Some((node, true)) => tx.get_mut(node)?.left = to,
            Some((node, false)) => tx.get_mut(node)?.right = to,
        }
        Ok(())
    }
}

/// Parts a tree into what is below `key` and what is above.
fn split<B: Backend>(
    tx: &mut Transaction<'_, B>,
    tree: Ptr<Node>,
    key: u64,
) -> Result<(Ptr<Node>, Ptr<Node>), Error> {
    let Some(node) = tree.non_null() else {
        return Ok((Ptr::NULL, Ptr::NULL));
    };
    let found = *tx.get(node)?;
    if found.key < key {
        let (low, high) = split(tx, found.right, key)?;
        tx.get_mut(node)?.right = low;
        Ok((node, high))
    } else {
        let (low, high) = split(tx, found.left, key)?;
        tx.get_mut(node)?.left = high;
        Ok((low, node))
    }
}

/// Joins two trees of which the first lies wholly below the second.
fn merge<B: Backend>(
    tx: &mut Transaction<'_, B>,
    low: Ptr<Node>,
    high: Ptr<Node>,
) -> Result<Ptr<Node>, Error> {
    let (Some(first), Some(second)) = (low.non_null(), high.non_null()) else {
        return Ok(if low.is_null() { high } else { low });
    };
    let (one, other) = (*tx.get(first)?, *tx.get(second)?);
    if priority(one.key) >= priority(other.key) {
        let below = merge(tx, one.right, second)?;
        tx.get_mut(first)?.right = below;
        Ok(first)
    } else {
        let below = merge(tx, first, other.left)?;
        tx.get_mut(second)?.left = below;
        Ok(second)
    }
}

fn priority(key: u64) -> u64 {
    let mixed = (key ^ key >> 31).wrapping_mul(0x7fb5_d329_728e_a185);
    (mixed ^ mixed >> 27).wrapping_mul(0x81da_def4_bc2d_d44d)
}

const _: () = assert!(size_of::<Node>() == 32);
