//! What an upper's file system can do.
//!
//! Invariant: plain data; `probe` finds it out.

/// How whiteouts are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhiteoutForm {
    Device,
    Attribute,
}

/// What the upper's file system can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Can {
    pub(super) form: WhiteoutForm,
    /// `RENAME_EXCHANGE`.
    pub(super) exchange: bool,
    /// `RENAME_NOREPLACE`.
    pub(super) no_replace: bool,
    /// `RENAME_WHITEOUT`, with a whiteout of our form.
    pub(super) leave_whiteout: bool,
    /// Hard links.
    pub(super) link: bool,
}

impl Can {
    /// What nearly all file systems can.
    pub(super) const ALL: Self = Self {
        form: WhiteoutForm::Device,
        exchange: true,
        no_replace: true,
        leave_whiteout: true,
        link: true,
    };
}
