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

/// What a field of a map holds.
#[cfg(feature = "user")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shown {
    /// An integer.
    Number(u64),
    /// Bytes in the order they lie in: addresses, headers.
    Bytes(Vec<u8>),
    /// A map type with its fields, without padding.
    Fields(Vec<(&'static str, Self)>),
}

/// Says what it holds.
#[cfg(feature = "user")]
pub trait Show {
    /// Returns what it holds.
    fn show(&self) -> Shown;
}

#[cfg(feature = "user")]
macro_rules! show_number {
    ($($ty:ty),+) => {$(
        impl Show for $ty {
            fn show(&self) -> Shown {
                Shown::Number((*self).into())
            }
        }
    )+};
}
#[cfg(feature = "user")]
show_number!(u8, u16, u32, u64);

#[cfg(feature = "user")]
impl<const N: usize> Show for [u8; N] {
    fn show(&self) -> Shown {
        Shown::Bytes(self.to_vec())
    }
}

#[cfg(feature = "user")]
impl<const N: usize> Show for [u64; N] {
    fn show(&self) -> Shown {
        Shown::Bytes(self.iter().flat_map(|word| word.to_ne_bytes()).collect())
    }
}

/// Bytes that all mean something, whatever they are: integers, byte arrays, and the structs of the
/// map ABI, which have no padding.
pub trait Plain: sealed::Plain + Copy + 'static {}

/// An address, network order: `[u8; 4]` or `[u8; 16]`.
pub trait Addr: Plain + core::fmt::Debug + Default + Eq + core::hash::Hash + Send + Sync {
    /// Returns it by words, as they lie in memory.
    fn words(self) -> impl AsRef<[u32]>;
}

impl Addr for [u8; 4] {
    fn words(self) -> impl AsRef<[u32]> {
        [u32::from_ne_bytes(self)]
    }
}

impl Addr for [u8; 16] {
    fn words(self) -> impl AsRef<[u32]> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self;
        [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
    }
}

pub(super) mod sealed {
    /// Implemented here and by `abi_struct` only.
    pub trait Plain {}
}

macro_rules! plain {
    ($($ty:ty),+) => {$(
        impl sealed::Plain for $ty {}
        impl Plain for $ty {}
    )+};
}
plain!(
    u8, u16, u32, u64, [u8; 2], [u8; 3], [u8; 4], [u8; 6], [u8; 8], [u8; 14], [u8; 16], [u8; 32],
    [u64; 32]
);

/// Compiles only for types whose bytes all mean something.
pub(super) const fn plain_size<T: Plain>() -> usize {
    size_of::<T>()
}

/// Declares `#[repr(C)]` structs of the map ABI, each with its size in bytes; one with an address
/// has a size for either family. The sizes hold both sides of the boundary together; a struct with
/// hidden padding or a field that is not [`Plain`] does not compile.
macro_rules! abi_struct {
    ($(
        $(#[doc = $doc:literal])+
        pub struct $name:ident $(<$addr:ident>)? ($($size:literal),+) {
            $($(#[doc = $field_doc:literal])+ pub $field:ident: $ty:ty,)+
        }
    )+) => {$(
        $(#[doc = $doc])+
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
        pub struct $name $(<$addr>)? {
            $($(#[doc = $field_doc])+ pub $field: $ty,)+
        }

        impl $(<$addr: $crate::abi::Addr>)? $crate::abi::layout::sealed::Plain
            for $name $(<$addr>)? {}
        impl $(<$addr: $crate::abi::Addr>)? $crate::abi::Plain for $name $(<$addr>)? {}

        impl $(<$addr: $crate::abi::Addr>)? $name $(<$addr>)? {
            const LAID_OUT: () = {
                let fields = 0 $(+ $crate::abi::layout::plain_size::<$ty>())+;
                assert!(size_of::<Self>() == fields, "hidden padding");
                assert!($(size_of::<Self>() == $size)||+, "another size");
            };

            /// Fields with offsets, sizes and meaning, in order.
            #[cfg(feature = "user")]
            pub const FIELDS: &'static [$crate::abi::layout::Field] = &[
                $($crate::abi::layout::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!(Self, $field),
                    size: size_of::<$ty>(),
                    meaning: concat!($($field_doc),+),
                },)+
            ];
        }

        #[cfg(feature = "user")]
        impl $(<$addr: $crate::abi::Addr + $crate::abi::Show>)? $crate::abi::Show
            for $name $(<$addr>)?
        {
            fn show(&self) -> $crate::abi::Shown {
                let fields = [$((stringify!($field), $crate::abi::Show::show(&self.$field)),)+];
                let padding = |name: &str| name.starts_with('_');
                let fields = fields.into_iter().filter(|(name, _)| !padding(name));
                $crate::abi::Shown::Fields(fields.collect())
            }
        }

        $crate::abi::layout::laid_out!($name $(<$addr>)?);
    )+};
}

/// Evaluates the layout checks of a struct, for both families if it has an address.
macro_rules! laid_out {
    ($name:ident) => {
        const _: () = $name::LAID_OUT;
    };
    ($name:ident <$addr:ident>) => {
        const _: () = $name::<[u8; 4]>::LAID_OUT;
        const _: () = $name::<[u8; 16]>::LAID_OUT;
    };
}

pub(crate) use {abi_struct, laid_out};
