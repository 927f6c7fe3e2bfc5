//! The terminal, taken and given back.
//!
//! Invariants: however the view ends (a key, an error, a panic, SIGTERM, SIGHUP, SIGINT, SIGQUIT),
//! the terminal is as it was before; a signal still ends the process as that signal does; nothing
//! is drawn after the terminal was given back.

use std::io::{Result, Stdout, Write, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// The terminal while it shows the view.
pub(super) struct TerminalScreen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    mouse: bool,
    /// Held while something is written; a process that a signal ends takes it for good.
    writing: Arc<Mutex<()>>,
}

impl TerminalScreen {
    /// Takes the terminal.
    pub(super) fn take(mouse: bool) -> Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        let writing = Arc::new(Mutex::new(()));
        watch_signals(Arc::clone(&writing))?;
        enter(mouse).inspect_err(|_| give_back())?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()));
        let terminal = terminal.inspect_err(|_| give_back())?;
        Ok(Self { terminal, mouse, writing })
    }

    /// Width and height in characters.
    pub(super) fn size(&self) -> Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        let _writing = lock(&self.writing);
        self.terminal.draw(draw)?;
        Ok(())
    }

    /// Stops the process, as Ctrl-Z does to others, and goes on when it is continued.
    pub(super) fn suspend(&mut self) -> Result<()> {
        give_back();
        emulate_default_handler(SIGTSTP)?;
        let _writing = lock(&self.writing);
        enter(self.mouse)?;
        self.terminal.clear()
    }
}

impl Drop for TerminalScreen {
    fn drop(&mut self) {
        give_back();
    }
}

fn lock(writing: &Mutex<()>) -> MutexGuard<'_, ()> {
    writing.lock().unwrap_or_else(PoisonError::into_inner)
}

fn enter(mouse: bool) -> Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
    if mouse { execute!(stdout(), EnableMouseCapture) } else { Ok(()) }
}

/// Undoes all of [`enter`]; each part is tried, because an error could not be reported any more.
fn give_back() {
    use ratatui::crossterm::cursor::Show;
    let mut out = stdout();
    let _ = execute!(out, DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _ = out.flush();
    let _ = disable_raw_mode();
}

/// Keyboard signals are keys here, but other processes send them too.
fn watch_signals(writing: Arc<Mutex<()>>) -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let watch = move || {
        for signal in signals.forever() {
            let _writing = lock(&writing);
            give_back();
            // Ends the process.
            if emulate_default_handler(signal).is_err() {
                std::process::exit(128 + signal);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
    Ok(())
}
