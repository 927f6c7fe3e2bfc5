//! What a command hears from the daemon that it has started.
//!
//! Invariant: a command that fails leaves no mount.

use std::io::{self, Read};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

/// All that a daemon says on its standard output, which is a pipe. One that cannot be heard takes
/// its mount away, if it has mounted, and ends: this waits for that.
///
/// # Errors
/// What reading says; of the daemon's end, if it cannot be brought about.
pub fn hear(daemon: &mut Child) -> io::Result<String> {
    let mut said = String::new();
    if let Some(mut pipe) = daemon.stdout.take()
        && let Err(error) = pipe.read_to_string(&mut said)
    {
        // The child was not waited for, so the number is its own.
        kill_process(Pid::from_child(daemon), Signal::TERM)
            .map_err(|errno| io::Error::other(format!("{error}, nor ended: {errno}")))?;
        daemon.wait()?;
        return Err(error);
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_daemon_that_cannot_be_heard_is_ended() {
        let script = r"printf '\377'; exec sleep 600 >&-";
        let mut daemon =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let error = hear(&mut daemon).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(daemon.try_wait().unwrap().is_some());
    }
}
