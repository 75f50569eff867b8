//! Declares a map type once: the struct, its layout checks, and the rows of `ABI.md`.

/// One field of a map type, as `ABI.md` shows it.
#[cfg(feature = "user")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    /// Field name.
    pub name: &'static str,
    /// Bytes from the start of the struct.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Meaning, units and byte order.
    pub meaning: &'static str,
}

/// Declares `#[repr(C)]` structs of the map ABI, each with its size in bytes.
///
/// Under feature `user` the zerocopy derives reject hidden padding and invalid bit patterns at
/// compile time; without it (the BPF build) the size assertion still holds both sides together.
macro_rules! abi_struct {
    ($(
        $(#[doc = $doc:literal])+
        pub struct $name:ident ($size:literal) {
            $($(#[doc = $field_doc:literal])+ pub $field:ident: $ty:ty,)+
        }
    )+) => {$(
        $(#[doc = $doc])+
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        #[cfg_attr(
            feature = "user",
            derive(
                Hash,
                zerocopy::FromBytes,
                zerocopy::IntoBytes,
                zerocopy::Immutable,
                zerocopy::KnownLayout
            )
        )]
        pub struct $name {
            $($(#[doc = $field_doc])+ pub $field: $ty,)+
        }

        const _: () = assert!(size_of::<$name>() == $size);

        #[cfg(feature = "user")]
        impl $name {
            /// Fields with offsets, sizes and meaning, in order.
            pub const FIELDS: &'static [$crate::abi::layout::Field] = &[
                $($crate::abi::layout::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($name, $field),
                    size: size_of::<$ty>(),
                    meaning: concat!($($field_doc),+),
                },)+
            ];
        }
    )+};
}

pub(crate) use abi_struct;
