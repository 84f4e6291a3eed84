//! Which types may live in persistent memory, and how they name each other.

use std::fmt;
use std::marker::PhantomData;

use rio_core::At;

/// A type whose bytes mean the same to the next process, which may find any bytes at all.
///
/// # Safety
/// The type is `repr(C)` or a primitive, has no padding, holds no address and no reference, is at
/// most 16-aligned, and every pattern of its bytes is a valid value (so no `bool`, `char` or
/// `enum`).
pub unsafe trait Persistent: Copy + 'static {}

macro_rules! primitives {
    ($($name:ty)*) => {
        $(
            // SAFETY: a number; all bits are valid.
            unsafe impl Persistent for $name {}
        )*
    };
}
primitives! { u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 f32 f64 }

// SAFETY: as the elements are, without gaps between them.
unsafe impl<T: Persistent, const N: usize> Persistent for [T; N] {}

/// Where a `T` lies in persistent memory: a window and an offset, good at any address.
///
/// Any word is a valid `Ptr`; whether there is a `T` behind it is checked when it is used.
#[repr(transparent)]
pub struct Ptr<T> {
    word: u64,
    of: PhantomData<fn() -> T>,
}

// SAFETY: one word, any of which is valid.
unsafe impl<T: 'static> Persistent for Ptr<T> {}

impl<T> Ptr<T> {
    /// The pointer to nothing.
    pub const NULL: Ptr<T> = Ptr {
        word: 0,
        of: PhantomData,
    };

    pub const fn at(self) -> At {
        At::from_word(self.word)
    }

    pub const fn from_at(at: At) -> Ptr<T> {
        Ptr {
            word: at.word(),
            of: PhantomData,
        }
    }

    pub const fn is_null(self) -> bool {
        self.word == 0
    }

    pub fn non_null(self) -> Option<Ptr<T>> {
        (self.word != 0).then_some(self)
    }

    /// The element `index` of an array that begins here.
    pub const fn element(self, index: usize) -> Ptr<T> {
        match index.checked_mul(size_of::<T>()) {
            Some(bytes) if bytes < 1 << 48 => Ptr::from_at(self.at().plus(bytes)),
            // No place at all, which is found out when it is used.
            _ => Ptr {
                word: u64::MAX,
                of: PhantomData,
            },
        }
    }

    /// The same place as another type: what lies there is bytes in any case.
    pub const fn cast<U>(self) -> Ptr<U> {
        Ptr {
            word: self.word,
            of: PhantomData,
        }
    }
}

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Ptr<T> {
        *self
    }
}

impl<T> Copy for Ptr<T> {}

impl<T> PartialEq for Ptr<T> {
    fn eq(&self, other: &Ptr<T>) -> bool {
        self.word == other.word
    }
}

impl<T> Eq for Ptr<T> {}

impl<T> fmt::Debug for Ptr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ptr({})", self.at())
    }
}

/// Declares `repr(C)` structs of persistent fields and checks that no byte of them is padding.
#[macro_export]
macro_rules! persistent {
    ($(
        $(#[$attribute:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_attribute:meta])* $field_vis:vis $field:ident : $type:ty),* $(,)?
        }
    )*) => { $(
        $(#[$attribute])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        $vis struct $name { $($(#[$field_attribute])* $field_vis $field: $type),* }

        const _: () = {
            $( $crate::assert_persistent::<$type>(); )*
            assert!(
                0 $( + ::core::mem::size_of::<$type>() )* == ::core::mem::size_of::<$name>(),
                "the struct has padding: order its fields by size or add explicit ones",
            );
            assert!(::core::mem::align_of::<$name>() <= 16);
        };

        #[allow(unsafe_code)]
        // SAFETY: the assertions above: repr(C), persistent fields, no padding.
        unsafe impl $crate::Persistent for $name {}
    )* };
}

#[doc(hidden)]
pub const fn assert_persistent<T: Persistent>() {}
