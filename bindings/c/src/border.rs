//! The border itself: what passes it is checked on the way in, and caught on the way out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::error::{Failure, MosStatus, Result, keep, wrong};

/// Does the work of a call. A panic of it is a fault of the library, and goes no further.
pub fn call(work: impl FnOnce() -> Result<()>) -> MosStatus {
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = format!("a fault of the library, which should not be: {}", said(&*panic));
        Err(Failure { status: MosStatus::MOS_PANIC, words })
    });
    match outcome {
        Ok(()) => {
            keep(None);
            MosStatus::MOS_OK
        }
        Err(Failure { status, words }) => {
            keep(Some(&words));
            status
        }
    }
}

/// As [`call`], of what makes an object: it goes to `out`, which is NULL where there is none.
pub unsafe fn making<T>(out: *mut *mut T, make: impl FnOnce() -> Result<T>) -> MosStatus {
    call(|| {
        if out.is_null() {
            return Err(wrong("the place for the result is NULL"));
        }
        // SAFETY: a place for a pointer, by the call's contract.
        unsafe { *out = ptr::null_mut() };
        let made = Box::into_raw(Box::new(make()?));
        // SAFETY: the same place.
        unsafe { *out = made };
        Ok(())
    })
}

/// As [`call`], of what only looks: `none` where there is nothing to see.
pub fn looking<T>(none: T, look: impl FnOnce() -> Result<T>) -> T {
    let mut seen = none;
    call(|| {
        seen = look()?;
        Ok(())
    });
    seen
}

/// Gives an object back.
pub unsafe fn free<T>(object: *mut T) {
    if !object.is_null() {
        call(|| {
            // SAFETY: `making` made it, and nobody has given it back.
            drop(unsafe { Box::from_raw(object) });
            Ok(())
        });
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it says no more")
}

/// A struct that C fills in. Its first field is its size, as the program knows it.
///
/// # Safety
/// It is `repr(C)`, begins with `size: usize`, and all zeros are a value of it.
pub unsafe trait Struct: Copy {
    /// For messages.
    const NAME: &'static str;

    /// All at its usual value; the size is set by who asks.
    fn usual() -> Self;
}

/// Structs of other libraries' ages are small too: more is no size.
const MOST: usize = 1 << 16;

fn check<T: Struct>(size: usize) -> Result<()> {
    match (size_of::<usize>()..=MOST).contains(&size) {
        true => Ok(()),
        false => Err(wrong(format!(
            "a {name} of {size} bytes: begin it with its init function, which takes sizeof({name})",
            name = T::NAME
        ))),
    }
}

/// Fills in `size` bytes with the usual values.
pub unsafe fn init<T: Struct>(to: *mut T, size: usize) -> MosStatus {
    call(|| {
        check::<T>(size)?;
        if to.is_null() {
            return Err(wrong(format!("the {} is NULL", T::NAME)));
        }
        let usual = T::usual();
        // SAFETY: `to` has `size` bytes, by the call's contract, and the size comes first.
        unsafe {
            ptr::write_bytes(to.cast::<u8>(), 0, size);
            let from = ptr::from_ref(&usual).cast::<u8>();
            ptr::copy_nonoverlapping(from, to.cast::<u8>(), size.min(size_of::<T>()));
            to.cast::<usize>().write(size);
        }
        Ok(())
    })
}

/// What a program filled in: fields that it does not know have their usual values. Those of later
/// libraries have to be 0, for here nothing can be made of them.
pub unsafe fn read<T: Struct>(from: *const T) -> Result<T> {
    if from.is_null() {
        return Err(wrong(format!("the {} is NULL", T::NAME)));
    }
    // SAFETY: it begins with its size, by the trait's contract.
    let size = unsafe { from.cast::<usize>().read() };
    check::<T>(size)?;
    let mut value = T::usual();
    let own = size.min(size_of::<T>());
    // SAFETY: the struct has `size` bytes, as it says.
    let later = unsafe {
        ptr::copy_nonoverlapping(from.cast::<u8>(), ptr::from_mut(&mut value).cast(), own);
        std::slice::from_raw_parts(from.cast::<u8>().add(own), size - own)
    };
    match later.iter().all(|byte| *byte == 0) {
        true => Ok(value),
        false => Err(wrong(format!(
            "the {} has values in fields of a later library than this one, {}",
            T::NAME,
            env!("CARGO_PKG_VERSION")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::mos_last_error;
    use std::ffi::CStr;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Later {
        size: usize,
        a: u64,
        b: f64,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Now {
        size: usize,
        a: u64,
    }

    // SAFETY: as it asks.
    unsafe impl Struct for Later {
        const NAME: &'static str = "Later";
        fn usual() -> Self {
            Later { size: 0, a: 5, b: 0.5 }
        }
    }

    // SAFETY: as it asks.
    unsafe impl Struct for Now {
        const NAME: &'static str = "Now";
        fn usual() -> Self {
            Now { size: 0, a: 5 }
        }
    }

    fn last() -> String {
        // SAFETY: it ends with 0.
        unsafe { CStr::from_ptr(mos_last_error()) }.to_str().unwrap().to_string()
    }

    #[test]
    fn panics_are_caught_and_told() {
        let status = call(|| panic!("of {}", 5));
        assert_eq!((status, last().contains("of 5")), (MosStatus::MOS_PANIC, true));
        assert_eq!(call(|| Err(wrong("so"))), MosStatus::MOS_ERROR);
        assert_eq!(last(), "so");
        assert_eq!((call(|| Ok(())), last()), (MosStatus::MOS_OK, String::new()));
    }

    #[test]
    fn structs_of_other_ages_are_read() {
        // A program of an earlier header: what it does not know is usual.
        let mut now = Now { size: 0, a: 0 };
        // SAFETY: of its size.
        unsafe { init(&mut now, size_of::<Now>()) };
        assert_eq!(now, Now { size: 16, a: 5 });
        now.a = 7;
        // SAFETY: it says how large it is.
        let read_later = unsafe { read(ptr::from_ref(&now).cast::<Later>()) }.unwrap();
        assert_eq!(read_later, Later { size: 16, a: 7, b: 0.5 });
        // And one of a later header.
        let mut later = Later { size: 0, a: 1, b: 1.0 };
        // SAFETY: of its size.
        unsafe { init(ptr::from_mut(&mut later).cast::<Now>(), size_of::<Later>()) };
        assert_eq!(later, Later { size: 24, a: 5, b: 0.0 });
        // SAFETY: it says how large it is.
        let read_now = |later: &Later| unsafe { read(ptr::from_ref(later).cast::<Now>()) };
        assert_eq!(read_now(&later).unwrap(), Now { size: 24, a: 5 });
        later.b = 1.0;
        assert!(read_now(&later).unwrap_err().words.contains("later library"));
        later.size = 0;
        assert!(read_now(&later).unwrap_err().words.contains("sizeof(Now)"));
        // SAFETY: NULL is refused.
        assert!(unsafe { read::<Now>(ptr::null()) }.is_err());
    }
}
