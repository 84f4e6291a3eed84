//! Peers written in C are loaded when they are run: building needs none of them, and one that is
//! not installed is a row that says so.

use std::ffi::{CStr, c_void};

/// Declares a struct of functions and how to find them in a shared library.
#[macro_export]
macro_rules! library {
    ($name:ident in $file:literal { $(fn $function:ident($($argument:ty),* $(,)?) $(-> $result:ty)?;)* }) => {
        #[derive(Clone, Copy)]
        struct $name { $($function: unsafe extern "C" fn($($argument),*) $(-> $result)?),* }

        impl $name {
            fn load() -> Result<$name, String> {
                let library = $crate::systems::library::open($file)?;
                // SAFETY: the types are those of the library's header.
                Ok($name { $($function: unsafe {
                    std::mem::transmute::<*mut std::ffi::c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(
                        $crate::systems::library::symbol(library, stringify!($function))?
                    )
                }),* })
            }
        }
    };
}

pub fn open(file: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: a C string; the library stays loaded.
    let library = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW) };
    match library.is_null() {
        true => Err(format!("{} is not installed", file.to_string_lossy())),
        false => Ok(library),
    }
}

pub fn symbol(library: *mut c_void, name: &str) -> Result<*mut c_void, String> {
    let c_name = std::ffi::CString::new(name).expect("a name");
    // SAFETY: the library was opened, the name is a C string.
    let symbol = unsafe { libc::dlsym(library, c_name.as_ptr()) };
    if symbol.is_null() {
        Err(format!("{name} is not in the library"))
    } else {
        Ok(symbol)
    }
}
