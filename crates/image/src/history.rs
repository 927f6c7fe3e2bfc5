//! Which step of an image's history made which layer.
//!
//! A config has a list of steps and a list of layers; a step says with `empty_layer` that it made
//! none, the others are taken to have made the layers in their order (OCI config.md, "history").
//!
//! Invariants: every layer has an answer, be it that nothing is known; where the numbers of steps
//! and layers do not fit, the answer is marked as a guess.

use jiff::Timestamp;
use strata_tree::DiffId;

use crate::config::ImageConfig;

/// What made one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerStep {
    /// The layer's position from the base.
    pub position: usize,
    /// The layer.
    pub diff_id: DiffId,
    /// The step's number in the history, from 1, steps without a layer counted; `None` if the
    /// history does not tell of the layer.
    pub number: Option<usize>,
    /// When; `None` if unsaid or unreadable.
    pub created: Option<Timestamp>,
    /// The command, as it is in the config; `None` if unsaid.
    pub created_by: Option<String>,
    /// A remark; `None` if there is none.
    pub comment: Option<String>,
}

/// What made each layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSteps {
    /// One for each layer, the base first.
    pub steps: Vec<LayerStep>,
    /// The history has as many steps with a layer as the image has layers, or has no steps at
    /// all. If not, some tool has added or squashed layers without a word, and the steps may
    /// belong to other layers.
    pub certain: bool,
}

impl LayerSteps {
    /// Those of an image.
    ///
    /// ```
    /// use strata_image::{ImageConfig, LayerSteps};
    /// # fn main() -> strata_image::Result<()> {
    /// let id = format!("sha256:{}", "1".repeat(64));
    /// let config = format!(
    ///     r#"{{"rootfs": {{"type": "layers", "diff_ids": ["{id}", "{id}"]}},
    ///          "history": [{{"created_by": "/bin/sh -c #(nop) ADD file:1 in / "}},
    ///                      {{"created_by": "ENV A=b", "empty_layer": true}},
    ///                      {{"created_by": "RUN /bin/sh -c make # buildkit"}}]}}"#
    /// );
    /// let steps = LayerSteps::of(&ImageConfig::parse(config.as_bytes())?);
    /// assert!(steps.certain);
    /// assert_eq!(steps.steps[0].instruction().as_deref(), Some("ADD file:1 in /"));
    /// assert_eq!(steps.steps[1].instruction().as_deref(), Some("RUN make"));
    /// assert_eq!(steps.steps[1].number, Some(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn of(config: &ImageConfig) -> Self {
        let said = config.history_steps();
        let steps = config.history().into_iter().enumerate().filter_map(|(at, step)| {
            let (position, diff_id) = step.layer?;
            Some(LayerStep {
                position,
                diff_id,
                number: (at < said.0).then_some(at + 1),
                created: step.created,
                created_by: step.created_by.map(str::to_owned),
                comment: step.comment.map(str::to_owned),
            })
        });
        let certain = said.0 == 0 || said.1 == config.diff_ids().len();
        Self { steps: steps.collect(), certain }
    }
}

impl LayerStep {
    /// The command as it stood in the Dockerfile, on one line: without the shell that docker puts
    /// before it and the remark that BuildKit puts behind it.
    pub fn instruction(&self) -> Option<String> {
        let text = self.created_by.as_deref()?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = text.strip_suffix("# buildkit").unwrap_or(&text).trim_end();
        let shell = text.strip_prefix("/bin/sh -c ");
        Some(match (shell.and_then(|text| text.strip_prefix("#(nop)")), shell) {
            (Some(instruction), _) => instruction.trim().to_owned(),
            (None, Some(command)) => format!("RUN {command}"),
            (None, None) => match text.strip_prefix("RUN /bin/sh -c ") {
                Some(command) => format!("RUN {command}"),
                None => text.to_owned(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(layers: usize, history: &str) -> LayerSteps {
        let ids: Vec<String> =
            (0..layers).map(|n| format!("\"sha256:{}\"", n.to_string().repeat(64))).collect();
        let config =
            format!(r#"{{"rootfs":{{"diff_ids":[{}]}},"history":{history}}}"#, ids.join(","));
        LayerSteps::of(&ImageConfig::parse(config.as_bytes()).unwrap())
    }

    #[test]
    fn a_history_that_does_not_fit_is_a_guess() {
        assert!(steps(2, "[]").certain);
        assert_eq!(steps(2, "[]").steps[1].number, None);
        let short = steps(2, r#"[{"created_by":"a"},{"empty_layer":true}]"#);
        assert!(!short.certain);
        assert_eq!(short.steps[0].number, Some(1));
        assert_eq!((short.steps[1].number, &short.steps[1].created_by), (None, &None));
        let long = steps(1, r#"[{"empty_layer":true},{"created_by":"a"},{"created_by":"b"}]"#);
        assert!(!long.certain);
        assert_eq!(long.steps.len(), 1);
        assert_eq!(long.steps[0].number, Some(2));
    }

    #[test]
    fn commands_read_as_they_were_written() {
        for (text, instruction) in [
            ("/bin/sh -c #(nop)  CMD [\"sh\"]", "CMD [\"sh\"]"),
            ("/bin/sh -c apt-get   update", "RUN apt-get update"),
            ("RUN /bin/sh -c set -eux;\n\tmake # buildkit", "RUN set -eux; make"),
            ("COPY a b # buildkit", "COPY a b"),
            ("umoci repack", "umoci repack"),
        ] {
            let one = steps(1, &format!("[{{\"created_by\":{text:?}}}]"));
            assert_eq!(one.steps[0].instruction().as_deref(), Some(instruction));
        }
    }
}
