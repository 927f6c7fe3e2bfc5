//! What a [`Spill`](super::Spill) is made of: values that are the same number of bytes each.
//!
//! Invariants: [`Record::take`] of what [`Record::put`] wrote is the value again; numbers are
//! little-endian.

/// A value of a fixed number of bytes.
pub trait Record: Copy {
    /// Bytes of each.
    const BYTES: usize;

    /// Writes it into that many bytes.
    fn put(&self, out: &mut [u8]);

    /// Reads it from that many bytes.
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Record for $type {
            const BYTES: usize = size_of::<Self>();

            fn put(&self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }

            fn take(bytes: &[u8]) -> Self {
                let mut all = [0; size_of::<Self>()];
                all.copy_from_slice(bytes);
                Self::from_le_bytes(all)
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64, i64);

impl<const N: usize> Record for [u8; N] {
    const BYTES: usize = N;

    fn put(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }

    fn take(bytes: &[u8]) -> Self {
        let mut all = [0; N];
        all.copy_from_slice(bytes);
        all
    }
}

/// A struct whose fields are records, as a record.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type,)*
        }

        impl $crate::spill::Record for $name {
            const BYTES: usize = 0 $(+ <$type as $crate::spill::Record>::BYTES)*;

            fn put(&self, out: &mut [u8]) {
                let mut rest = out;
                $(
                    let (field, after) =
                        rest.split_at_mut(<$type as $crate::spill::Record>::BYTES);
                    $crate::spill::Record::put(&self.$field, field);
                    rest = after;
                )*
                debug_assert!(rest.is_empty());
            }

            fn take(bytes: &[u8]) -> Self {
                let mut rest = bytes;
                $(
                    let (field, after) = rest.split_at(<$type as $crate::spill::Record>::BYTES);
                    let $field = <$type as $crate::spill::Record>::take(field);
                    rest = after;
                )*
                debug_assert!(rest.is_empty());
                Self { $($field,)* }
            }
        }
    };
}
