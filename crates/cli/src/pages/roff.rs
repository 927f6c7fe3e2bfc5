//! man(7), as far as the pages need it.
//!
//! Invariant: whatever text is given is shown as it is: no line of it is taken for a request, no
//! dash for a hyphen, no backslash for an escape.

/// What clap_mangen means by `\*(Aq`: an apostrophe that stays one.
const APOSTROPHE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// A page being written.
#[derive(Debug, Default)]
pub(super) struct Roff {
    text: String,
}

impl Roff {
    /// A page with a title, of a version of the program.
    pub(super) fn titled(name: &str, version: &str) -> Self {
        let mut page = Self { text: APOSTROPHE.to_owned() };
        let title = escaped(&name.to_uppercase());
        page.raw(&format!(".TH \"{title}\" \"1\" \"\" \"{}\" \"stratafs\"", escaped(version)));
        page
    }

    /// Sections that clap_mangen wrote, without the definition that it puts before each.
    pub(super) fn sections(&mut self, text: &str) {
        self.raw(text.replace(APOSTROPHE, "").trim_end());
    }

    fn raw(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A section.
    pub(super) fn section(&mut self, name: &str) {
        self.raw(&format!(".SH \"{}\"", escaped(name)));
    }

    /// A heading below a section.
    pub(super) fn heading(&mut self, name: &str) {
        self.raw(&format!(".SS \"{}\"", escaped(name)));
    }

    /// A paragraph.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.gap();
        self.raw(&line(text));
    }

    /// A term in bold, and what it means.
    pub(super) fn term(&mut self, term: &str, text: &str) {
        self.raw(".TP");
        self.raw(&format!("\\fB{}\\fR", escaped(term)));
        self.raw(&line(text));
    }

    /// Lines as they are, indented.
    pub(super) fn verbatim(&mut self, lines: &str) {
        self.gap();
        self.raw(".RS 4\n.nf");
        for one in lines.lines() {
            self.raw(&line(one));
        }
        self.raw(".fi\n.RE");
    }

    /// Between paragraphs; a section's first one stands where it is.
    fn gap(&mut self) {
        let last = self.text.lines().next_back().unwrap_or_default();
        if !last.starts_with(".S") {
            self.raw(".PP");
        }
    }

    /// What was written.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// A line of text: nothing at its beginning makes a request of it.
fn line(text: &str) -> String {
    let text = escaped(text);
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '\'' => out.push_str("\\(aq"),
            '`' => out.push_str("\\(ga"),
            '~' => out.push_str("\\(ti"),
            '^' => out.push_str("\\(ha"),
            '"' => out.push_str("\\(dq"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_taken_for_a_request_or_an_escape() {
        let mut roff = Roff::default();
        roff.paragraph(".SH and \\fB");
        roff.paragraph("'quoted' --all \"x\" ~/.a");
        roff.verbatim(".x\n  y");
        assert_eq!(
            roff.into_text(),
            ".PP\n\\&.SH and \\efB\n.PP\n\\(aqquoted\\(aq \\-\\-all \\(dqx\\(dq \\(ti/.a\n\
             .PP\n.RS 4\n.nf\n\\&.x\n  y\n.fi\n.RE\n"
        );
    }
}
