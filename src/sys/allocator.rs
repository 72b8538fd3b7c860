//! The C library's allocator: what it keeps of freed memory, and ways to have it given back.
//!
//! The functions are glibc's, and are found at run time: musl has none of them, and glibc has `mallinfo2` since 2.33.
//! Where a program has another allocator, glibc's is still there and next to nothing of it is in use: then there is
//! nothing to find and nothing to trim. Each of these takes the locks of the allocator's arenas, as `malloc` does.

use std::ffi::{c_int, c_void, CStr};

type Mallopt = unsafe extern "C" fn(c_int, c_int) -> c_int;
type MallocTrim = unsafe extern "C" fn(usize) -> c_int;
type Mallinfo2 = unsafe extern "C" fn() -> Info;

/// Freed memory of this size goes back to the system at once. Below it are the blocks that programs take and free all
/// the time, for which a system call each and a page fault for each page would be too dear.
const GIVE_BACK_FROM: c_int = 1 << 20;

/// Of `malloc.h`. The crate `libc` has them for glibc alone, and this is compiled for musl too.
const M_TRIM_THRESHOLD: c_int = -1;
const M_MMAP_THRESHOLD: c_int = -3;

/// The functions of the allocator that are there. By default, none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allocator {
    mallopt: Option<Mallopt>,
    malloc_trim: Option<MallocTrim>,
    mallinfo2: Option<Mallinfo2>,
}

/// `struct mallinfo2`, see mallinfo(3). The other numbers are left unnamed.
#[repr(C)]
pub(crate) struct Info {
    _before: [usize; 4],
    hblkhd: usize,
    _between: [usize; 2],
    uordblks: usize,
    fordblks: usize,
    _keepcost: usize,
}

/// The blocks of the allocator, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Free, those at the tops of the arenas included. The allocator knows neither whether they were ever touched, nor
    /// whether a trim has given their pages back.
    pub(crate) free: u64,
    /// In use, those with mappings of their own included.
    pub(crate) in_use: u64,
}

#[cfg(test)]
impl Info {
    pub(crate) fn of(free: usize, in_use: usize) -> Info {
        Info { _before: [0; 4], hblkhd: 0, _between: [0; 2], uordblks: in_use, fordblks: free, _keepcost: 0 }
    }
}

impl Allocator {
    /// One that a test makes up.
    #[cfg(test)]
    pub(crate) fn of(mallinfo2: Mallinfo2, malloc_trim: MallocTrim) -> Allocator {
        Allocator { mallopt: None, malloc_trim: Some(malloc_trim), mallinfo2: Some(mallinfo2) }
    }

    /// Looks for the functions, which takes the dynamic linker's lock.
    pub(crate) fn find() -> Allocator {
        let [mallopt, malloc_trim, mallinfo2] =
            [&b"mallopt\0"[..], &b"malloc_trim\0"[..], &b"mallinfo2\0"[..]].map(symbol);
        Allocator {
            // SAFETY: null is `None`, and else it is the function of this name, whose type mallopt(3) has.
            mallopt: unsafe { std::mem::transmute::<*mut c_void, Option<Mallopt>>(mallopt) },
            // SAFETY: as above, by malloc_trim(3).
            malloc_trim: unsafe { std::mem::transmute::<*mut c_void, Option<MallocTrim>>(malloc_trim) },
            // SAFETY: as above, by mallinfo(3): ten numbers of the type `size_t`.
            mallinfo2: unsafe { std::mem::transmute::<*mut c_void, Option<Mallinfo2>>(mallinfo2) },
        }
    }

    /// Whether it can be asked what it keeps, and told to give it back.
    pub(crate) fn can_trim(&self) -> bool {
        self.mallinfo2.is_some() && self.malloc_trim.is_some()
    }

    /// From now on, gives freed memory back at once where it is in blocks of 1 MiB or more. Without this, both thresholds
    /// grow with the blocks that are freed, up to 32 and 64 MiB.
    pub(crate) fn give_back_what_is_freed(&self) {
        let Some(mallopt) = self.mallopt else { return };
        for parameter in [M_MMAP_THRESHOLD, M_TRIM_THRESHOLD] {
            // SAFETY: it takes two numbers, and refuses those that it does not know.
            unsafe { mallopt(parameter, GIVE_BACK_FROM) };
        }
    }

    /// The blocks that it has. It goes through the free ones, a few nanoseconds for each.
    pub(crate) fn blocks(&self) -> Option<Blocks> {
        let mallinfo2 = self.mallinfo2?;
        // SAFETY: it takes nothing, and locks each arena for itself.
        let Info { hblkhd, uordblks, fordblks, .. } = unsafe { mallinfo2() };
        Some(Blocks { free: fordblks as u64, in_use: (uordblks as u64).saturating_add(hblkhd as u64) })
    }

    /// Gives the pages of free blocks back to the system, but for those at the tops of the arenas of other threads than
    /// the first.
    pub(crate) fn trim(&self) {
        if let Some(malloc_trim) = self.malloc_trim {
            // SAFETY: it takes a number, and locks each arena for itself.
            unsafe { malloc_trim(0) };
        }
    }
}

/// The address of a function, by its name with a NUL; null if nobody in this program has it.
fn symbol(name: &[u8]) -> *mut c_void {
    let Ok(name) = CStr::from_bytes_with_nul(name) else { return std::ptr::null_mut() };
    // SAFETY: the name ends with a NUL and outlives the call.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_has_is_no_function() {
        assert!(symbol(b"no_such_function_of_an_allocator\0").is_null() && symbol(b"no NUL").is_null());
        let none = Allocator::default();
        none.give_back_what_is_freed();
        none.trim();
        assert!(!none.can_trim() && none.blocks().is_none());
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn blocks_that_are_freed_are_free() {
        let allocator = Allocator::find();
        if !allocator.can_trim() {
            eprintln!("skipped: this C library has no mallinfo2");
            return;
        }
        // Too small for mappings of their own, and of each sixteen neighbours one stays. Other tests take and free blocks
        // meanwhile, in other arenas.
        let mut blocks: Vec<_> = (0..4096).map(|number| (number, vec![1_u8; 64 << 10])).collect();
        assert!(allocator.blocks().unwrap().in_use > 256 << 20);
        blocks.retain(|(number, _)| number % 16 == 0);
        assert!(allocator.blocks().unwrap().free > 200 << 20);
        allocator.trim();
    }
}
