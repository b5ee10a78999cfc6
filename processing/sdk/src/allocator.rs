//! The operators' allocator: what crosses between host and guest is many small pieces, each allocated by one side of a
//! call and freed at its other.
//!
//! Small blocks come from lists of free ones, a list for each size; what is freed goes back to its list and is the next
//! to be given out. Everything else is left to the standard allocator. Switch the feature `allocator` off to bring
//! another.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;

/// The sizes of blocks are multiples of this, and so are their addresses.
const GRAIN: usize = 16;
/// Larger ones are left to the standard allocator.
const SMALL_MAX: usize = 1024;
/// What is asked of the standard allocator at once, to be cut into blocks.
const CHUNK: usize = 16 << 10;

/// A free block, which holds the next one.
struct Free(*mut Free);

/// Lists of free blocks by size, and what is left of the last chunk.
struct Lists {
    free: [*mut Free; SMALL_MAX / GRAIN],
    chunk: *mut u8,
    left: usize,
}

/// Free lists for small blocks, in front of the standard allocator.
pub struct Allocator(UnsafeCell<Lists>);

// SAFETY: a component has one thread, and nothing here calls back into it: no two calls are ever in `Lists` at once. The
// module is for wasm32 without atomics only, and for tests that keep an allocator to themselves.
unsafe impl Sync for Allocator {}

impl Allocator {
    /// Without a chunk.
    pub const fn new() -> Self {
        let free = [ptr::null_mut(); SMALL_MAX / GRAIN];
        Self(UnsafeCell::new(Lists { free, chunk: ptr::null_mut(), left: 0 }))
    }
}

/// The list that blocks of this layout are on.
fn list(layout: Layout) -> Option<usize> {
    let small = layout.size() <= SMALL_MAX && layout.size() > 0 && layout.align() <= GRAIN;
    small.then(|| (layout.size() - 1) / GRAIN)
}

impl Lists {
    /// Cuts a block off the chunk.
    ///
    /// # Safety
    /// `size` is a multiple of [`GRAIN`] and no larger than [`SMALL_MAX`].
    #[cold]
    unsafe fn cut(&mut self, size: usize) -> *mut u8 {
        if self.left < size {
            // What was left of the old chunk is less than a block; it is lost.
            // SAFETY: the layout is not empty, and its alignment is a power of two.
            let chunk = unsafe { System.alloc(Layout::from_size_align_unchecked(CHUNK, GRAIN)) };
            if chunk.is_null() {
                return chunk;
            }
            (self.chunk, self.left) = (chunk, CHUNK);
        }
        let block = self.chunk;
        // SAFETY: at least `size` bytes of the chunk are left.
        self.chunk = unsafe { block.add(size) };
        self.left -= size;
        block
    }
}

// SAFETY: a block is on a list, in a chunk's rest, or given out, and on one of these only: `cut` takes it out of the rest,
// `alloc` off its list, `dealloc` puts it back. Blocks of a list have its size, which is that of the layout or more, and
// start at multiples of `GRAIN`: chunks do, and are cut at multiples of it. Which list, or none, depends on the layout
// alone, which is the same when a block is freed as when it was allocated.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(list) = list(layout) else {
            // SAFETY: the caller's promise is handed on.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: there is one thread, and no other reference to the lists is alive.
        let lists = unsafe { &mut *self.0.get() };
        let block = lists.free[list];
        if block.is_null() {
            // SAFETY: (list + 1) * GRAIN is such a size.
            return unsafe { lists.cut((list + 1) * GRAIN) };
        }
        // SAFETY: what is on a list was freed, holds a `Free`, and is ours.
        lists.free[list] = unsafe { (*block).0 };
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(list) = list(layout) else {
            // SAFETY: `alloc` had it from there, since the layout is the same.
            return unsafe { System.dealloc(block, layout) };
        };
        // SAFETY: there is one thread, and no other reference to the lists is alive.
        let lists = unsafe { &mut *self.0.get() };
        let block: *mut Free = block.cast();
        // SAFETY: the block is the caller's no more, and large and aligned enough for a `Free`.
        unsafe { block.write(Free(lists.free[list])) };
        lists.free[list] = block;
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size` with this alignment is a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list(layout), list(wanted)) {
            // SAFETY: the caller's promise is handed on.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (was, is) if was == is => block,
            _ => {
                // SAFETY: the caller's promise is handed on.
                let moved = unsafe { self.alloc(wanted) };
                if !moved.is_null() {
                    // SAFETY: both blocks hold that many bytes, and one of them is new.
                    unsafe { ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
                    // SAFETY: the caller's promise is handed on.
                    unsafe { self.dealloc(block, layout) };
                }
                moved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block that is given out, and the byte that it is full of.
    struct Block {
        at: *mut u8,
        layout: Layout,
        full_of: u8,
    }

    impl Block {
        fn new(allocator: &Allocator, layout: Layout, full_of: u8) -> Self {
            // SAFETY: no layout here is empty.
            let at = unsafe { allocator.alloc(layout) };
            let block = Self { at, layout, full_of };
            block.check_address();
            block.fill();
            block
        }

        fn check_address(&self) {
            assert!(
                !self.at.is_null() && self.at.addr().is_multiple_of(self.layout.align()),
                "{:?}",
                self.layout
            );
        }

        fn fill(&self) {
            // SAFETY: the block is ours, and so long.
            unsafe { ptr::write_bytes(self.at, self.full_of, self.layout.size()) };
        }

        /// Nobody else has written to it.
        fn check(&self, size: usize) {
            // SAFETY: the block is ours, has been filled, and is so long.
            let bytes = unsafe { std::slice::from_raw_parts(self.at, size) };
            assert!(bytes.iter().all(|byte| *byte == self.full_of), "{:?}", self.layout);
        }

        fn resize(&mut self, allocator: &Allocator, size: usize) {
            let kept = size.min(self.layout.size());
            // SAFETY: the block is the allocator's, with this layout, and `size` is not nothing.
            self.at = unsafe { allocator.realloc(self.at, self.layout, size) };
            self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
            self.check_address();
            self.check(kept);
            self.fill();
        }

        fn free(self, allocator: &Allocator) {
            self.check(self.layout.size());
            // SAFETY: the block is the allocator's, with this layout.
            unsafe { allocator.dealloc(self.at, self.layout) };
        }
    }

    /// Numbers below `end`, the same each time.
    fn random(state: &mut u64, end: usize) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % end
    }

    /// Sizes around those of the lists, and some that no list has.
    fn random_layout(state: &mut u64) -> Layout {
        let size = match random(state, 4) {
            0 => 1 + random(state, 2 * SMALL_MAX),
            1 => SMALL_MAX - 1 + random(state, 3),
            _ => 1 + random(state, 5 * GRAIN),
        };
        Layout::from_size_align(size, 1 << random(state, 7)).unwrap()
    }

    #[test]
    fn what_is_in_a_block_stays_until_it_is_freed_whatever_is_allocated_beside_it() {
        let allocator = Allocator::new();
        let (mut state, mut blocks) = (1, Vec::new());
        for step in 0..100_000_usize {
            match random(&mut state, 5) {
                0 | 1 => blocks.push(Block::new(&allocator, random_layout(&mut state), step as u8)),
                2 if !blocks.is_empty() => {
                    let at = random(&mut state, blocks.len());
                    let size = random_layout(&mut state).size();
                    blocks[at].resize(&allocator, size);
                }
                _ if !blocks.is_empty() => {
                    let at = random(&mut state, blocks.len());
                    blocks.swap_remove(at).free(&allocator);
                }
                _ => {}
            }
        }
        blocks.into_iter().for_each(|block| block.free(&allocator));
    }

    #[test]
    fn what_is_freed_is_the_next_to_be_given_out() {
        let allocator = Allocator::new();
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        let (one, two) = (Block::new(&allocator, layout(40), 1), Block::new(&allocator, layout(48), 2));
        let (first, second) = (one.at, two.at);
        one.free(&allocator);
        two.free(&allocator);
        let again = [33, 48].map(|size| Block::new(&allocator, layout(size), 3));
        assert_eq!(again.each_ref().map(|block| block.at), [second, first]);
        assert_ne!(Block::new(&allocator, layout(49), 4).at, first, "of another size");
        again.into_iter().for_each(|block| block.free(&allocator));
    }

    #[test]
    fn calls_that_free_what_they_allocate_need_no_more_room() {
        let allocator = Allocator::new();
        let call = || {
            let blocks = [8, 24, 100, 1000]
                .map(|size| Block::new(&allocator, Layout::from_size_align(size, 8).unwrap(), size as u8));
            blocks.into_iter().for_each(|block| block.free(&allocator));
        };
        // SAFETY: nothing else looks at the lists meanwhile.
        let left = || unsafe { (*allocator.0.get()).left };
        call();
        let before = left();
        (0..10_000).for_each(|_| call());
        assert_eq!(left(), before);
    }
}
