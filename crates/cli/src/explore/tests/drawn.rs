//! What is on the screen, character for character.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::{at, key, model, press};
use crate::explore;
use crate::explore::model::{Key, Model, ModelEvent};
use crate::explore::view::{Theme, draw};

fn screen(model: &Model, colours: bool) -> Terminal<TestBackend> {
    let backend = TestBackend::new(model.layout.width, model.layout.height);
    let mut terminal = Terminal::new(backend).unwrap();
    terminal.draw(|frame| draw(model, Theme { colours }, frame)).unwrap();
    terminal
}

/// The characters alone.
fn text(model: &Model) -> String {
    screen(model, false).backend().to_string()
}

#[test]
fn a_small_terminal_has_it_all() {
    let (_shelf, mut model) = model(80, 24);
    press(&mut model, "E");
    insta::assert_snapshot!("small", text(&model));
}

#[test]
fn a_wide_one_has_modes_and_owners() {
    let (_shelf, mut model) = model(140, 30);
    press(&mut model, "E[");
    insta::assert_snapshot!("wide", text(&model));
}

#[test]
fn a_narrow_one_has_one_pane() {
    let (_shelf, mut model) = model(40, 12);
    insta::assert_snapshot!("narrow_tree", text(&model));
    key(&mut model, Key::Tab);
    insta::assert_snapshot!("narrow_layers", text(&model));
}

#[test]
fn changes_and_a_filter() {
    let (_shelf, mut model) = model(80, 16);
    press(&mut model, "cs/py");
    insta::assert_snapshot!("changes", text(&model));
}

#[test]
fn covers_lie_over_it() {
    let (_shelf, mut model) = model(80, 24);
    press(&mut model, "?");
    insta::assert_snapshot!("help", text(&model));
    press(&mut model, "q");
    model.rows.reveal(at(&model, "etc/passwd"));
    press(&mut model, "i");
    insta::assert_snapshot!("facts", text(&model));
    press(&mut model, "qt");
    insta::assert_snapshot!("image", text(&model));
}

#[test]
fn marks_have_colours_and_letters() {
    let (_shelf, mut model) = model(80, 24);
    press(&mut model, "c");
    let with = screen(&model, true);
    let without = screen(&model, false);
    let (with, without) = (with.backend().buffer(), without.backend().buffer());
    for (letter, colour) in [("A", Color::Green), ("M", Color::Yellow), ("D", Color::Red)] {
        // The second column inside the tree's border.
        let row = (4..20).find(|y| with[(30, *y)].symbol() == letter).unwrap();
        assert_eq!(with[(30, row)].fg, colour, "{letter}");
        assert_eq!(without[(30, row)].symbol(), letter);
    }
    let colours = without.content().iter().any(|cell| cell.fg != Color::Reset);
    assert!(!colours, "NO_COLOR is no colour at all");
    // The cursor is seen without colours.
    assert!(without[(40, 3)].modifier.contains(Modifier::REVERSED));
}

/// The event of a new size comes after the size itself.
#[test]
fn what_is_drawn_fits_a_terminal_that_has_got_smaller() {
    let (_shelf, mut model) = model(140, 40);
    let theme = Theme { colours: true };
    for (width, height) in [(40, 12), (5, 3), (0, 0), (90, 50)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| explore::draw(&mut model, theme, frame)).unwrap();
        assert_eq!((model.layout.width, model.layout.height), (width, height));
    }
}

#[test]
fn any_size_can_be_drawn() {
    let (_shelf, mut model) = model(80, 24);
    let covers =
        [("E", "Tree, "), ("?", "Help: "), ("i", "Facts: "), ("t", "Image: "), ("/x", "Filter: x")];
    for (keys, wanted) in covers {
        press(&mut model, keys);
        for width in [0, 1, 2, 3, 9, 29, 40, 69, 70, 71, 200] {
            for height in [0, 1, 2, 3, 4, 7, 18, 60] {
                model.update(ModelEvent::Resize(width, height));
                let drawn = screen(&model, true);
                let buffer = drawn.backend().buffer();
                let at = format!("{keys:?} at {width} x {height}");
                assert_eq!((buffer.area.width, buffer.area.height), (width, height), "{at}");
                let shown: String = buffer.content().iter().map(|cell| cell.symbol()).collect();
                if width >= 2 && height > 0 {
                    assert!(!shown.trim().is_empty(), "{at}: nothing is shown");
                }
                if width >= 69 && height >= 3 {
                    assert!(shown.starts_with(" example:1 "), "{at}: {shown}");
                }
                if width >= 29 && height >= 7 {
                    assert!(shown.contains(wanted), "{at}: {shown}");
                }
            }
        }
        key(&mut model, Key::Esc);
    }
}
