//! Keys and what they lead to.

use super::{at, here, key, model, press, shown};
use crate::explore::model::rows::Sort;
use crate::explore::model::{Cover, Effect, Key, Model, ModelEvent, Pane, Prompt};

fn said(model: &Model) -> &str {
    model.said.as_deref().unwrap_or_default()
}

#[test]
fn directories_open_and_close() {
    let (_shelf, mut model) = model(80, 24);
    let top = ["/", "/app", "/etc", "/link", "/usr", "/var"];
    assert_eq!(shown(&model), top);
    press(&mut model, "j");
    key(&mut model, Key::Right);
    let open = ["/", "/app", "/app/copy.so", "/app/data", "/app/main.py", "/etc"];
    assert_eq!(shown(&model)[..6], open);
    // Right on an open directory goes in, left goes to it and then closes it.
    key(&mut model, Key::Right);
    assert_eq!(here(&model), "/app/copy.so");
    key(&mut model, Key::Left);
    assert_eq!(here(&model), "/app");
    key(&mut model, Key::Left);
    assert_eq!(shown(&model), top);
    press(&mut model, "E");
    // 17 that are there and var/cache with its list, which the layer removed.
    assert_eq!(model.rows.len(), 19);
    assert_eq!(here(&model), "/app");
    press(&mut model, "C");
    assert_eq!(shown(&model), top);
}

#[test]
fn the_cursor_stays_where_it_was_or_goes_up() {
    let (_shelf, mut model) = model(80, 24);
    model.rows.reveal(at(&model, "app/data/x"));
    assert_eq!(here(&model), "/app/data/x");
    press(&mut model, "s");
    assert_eq!(here(&model), "/app/data/x");
    // The base has no app.
    press(&mut model, "[[");
    assert_eq!((here(&model).as_str(), model.layer), ("/", 0));
    press(&mut model, "[");
    assert_eq!(model.layer, 0);
    press(&mut model, "]]]]");
    assert_eq!(model.layer, 2);
}

#[test]
fn a_window_follows_the_cursor() {
    // Eight rows of the tree.
    let (_shelf, mut model) = model(80, 13);
    press(&mut model, "E");
    assert_eq!(model.rows.height(), 8);
    assert_eq!(shown(&model).len(), 8);
    key(&mut model, Key::End);
    assert_eq!(shown(&model).last().map(String::as_str), Some("/var/cache/list"));
    assert_eq!(model.rows.window().0, 11);
    key(&mut model, Key::PageUp);
    assert_eq!((model.rows.cursor(), model.rows.window().0), (10, 10));
    key(&mut model, Key::Home);
    assert_eq!(model.rows.window().0, 0);
    // A smaller and a larger screen keep the cursor in sight.
    key(&mut model, Key::End);
    model.update(ModelEvent::Resize(80, 10));
    assert_eq!(shown(&model).last().map(String::as_str), Some("/var/cache/list"));
    model.update(ModelEvent::Resize(80, 60));
    assert_eq!(shown(&model).len(), 19);
    for (width, height) in [(0, 0), (1, 1), (3, 2), (69, 5), (300, 4)] {
        model.update(ModelEvent::Resize(width, height));
        assert!(!shown(&model).is_empty());
    }
}

#[test]
fn only_changes_are_shown_with_what_is_above() {
    let (_shelf, mut model) = model(80, 24);
    press(&mut model, "c");
    let changed =
        ["/", "/app", "/app/copy.so", "/app/main.py", "/var", "/var/cache", "/var/cache/list"];
    assert_eq!(shown(&model), changed);
    // Since the base.
    press(&mut model, "a");
    assert!(shown(&model).contains(&"/usr/bin/old".to_owned()));
    assert!(!shown(&model).contains(&"/etc/hosts.bak".to_owned()));
    press(&mut model, "ac");
    assert_eq!(shown(&model), ["/", "/app", "/etc", "/link", "/usr", "/var"]);
}

#[test]
fn the_largest_come_first() {
    let (_shelf, mut model) = model(80, 24);
    press(&mut model, "s");
    assert_eq!(model.rows.sort(), Sort::Size);
    assert_eq!(shown(&model), ["/", "/usr", "/app", "/etc", "/link", "/var"]);
    // What a layer removed weighs where changes alone are shown.
    press(&mut model, "c");
    assert_eq!(shown(&model)[1..5], ["/app", "/app/copy.so", "/app/main.py", "/var"]);
}

#[test]
fn filters_keep_what_is_above_and_open_it() {
    let (_shelf, mut model) = model(80, 24);
    press(&mut model, "/so");
    let found = ["/", "/app", "/app/copy.so", "/usr", "/usr/lib", "/usr/lib/a.so", "/usr/lib/b.so"];
    assert_eq!(shown(&model), found);
    assert_eq!((here(&model).as_str(), model.rows.found()), ("/app/copy.so", Some(3)));
    // Letter by letter; a glob; a path.
    press(&mut model, "x");
    assert_eq!((shown(&model).len(), model.rows.found()), (1, Some(0)));
    key(&mut model, Key::Backspace);
    key(&mut model, Key::Ctrl('u'));
    press(&mut model, "*.py");
    assert_eq!(shown(&model), ["/", "/app", "/app/main.py"]);
    key(&mut model, Key::Ctrl('w'));
    press(&mut model, "usr/*");
    assert_eq!(shown(&model)[..3], ["/", "/usr", "/usr/bin"]);
    // Kept when the line is left; a directory that was found can be opened.
    key(&mut model, Key::Enter);
    assert_eq!(model.prompt, None);
    assert_eq!(here(&model), "/usr/bin");
    key(&mut model, Key::Right);
    assert!(shown(&model).contains(&"/usr/bin/tool".to_owned()));
    key(&mut model, Key::Esc);
    assert_eq!(model.filter, "");
    assert_eq!(model.rows.found(), None);
}

#[test]
fn a_link_is_followed_inside_the_image() {
    let (_shelf, mut model) = model(80, 24);
    press(&mut model, "/link");
    key(&mut model, Key::Enter);
    assert_eq!(here(&model), "/link");
    assert_eq!(key(&mut model, Key::Enter), None);
    // The filter hid the target.
    assert_eq!((here(&model).as_str(), model.filter.as_str()), ("/usr/bin/tool", ""));
    assert_eq!(key(&mut model, Key::Enter), Some(Effect::View(at(&model, "usr/bin/tool"))));
}

#[test]
fn one_path_or_the_marked_ones_are_extracted() {
    let (_shelf, mut model) = model(80, 24);
    press(&mut model, "e");
    assert!(said(&model).starts_with("mark what to extract"), "{}", said(&model));
    press(&mut model, "jje");
    assert!(matches!(&model.prompt, Some(Prompt { text, .. }) if text == "./etc"));
    key(&mut model, Key::Esc);
    assert_eq!(model.prompt, None);
    press(&mut model, "e");
    let Some(Effect::Extract(one)) = key(&mut model, Key::Enter) else { panic!() };
    assert_eq!((one.dest.as_str(), one.layers, one.replace), ("./etc", 3, false));
    assert_eq!(one.paths.iter().copied().collect::<Vec<_>>(), [at(&model, "etc")]);
    // It is there: a question, answered both ways.
    model.update(ModelEvent::Exists(one.clone(), "./etc".to_owned()));
    assert_eq!(press(&mut model, "x"), None);
    assert!(matches!(model.cover, Some(Cover::Replace(..))));
    assert_eq!(press(&mut model, "n"), None);
    assert_eq!(said(&model), "./etc was left as it is");
    model.update(ModelEvent::Exists(one.clone(), "./etc".to_owned()));
    let Some(Effect::Extract(again)) = press(&mut model, "y") else { panic!() };
    assert!(again.replace);
    // Marks; the same key takes them away.
    press(&mut model, "gjxx");
    assert_eq!(model.marked.len(), 2);
    press(&mut model, "gjx");
    assert_eq!(model.marked.iter().copied().collect::<Vec<_>>(), [at(&model, "etc")]);
    press(&mut model, "e");
    key(&mut model, Key::Ctrl('u'));
    assert_eq!(key(&mut model, Key::Enter), None, "nothing was typed");
    press(&mut model, "e");
    key(&mut model, Key::Ctrl('u'));
    press(&mut model, "/tmp/a b.tar");
    let Some(Effect::Extract(marked)) = key(&mut model, Key::Enter) else { panic!() };
    assert_eq!((marked.dest.as_str(), marked.marked), ("/tmp/a b.tar", true));
    press(&mut model, "u");
    assert!(model.marked.is_empty());
}

#[test]
fn what_a_layer_removed_is_taken_from_below_it() {
    let (_shelf, mut model) = model(80, 24);
    model.rows.reveal(at(&model, "var/cache/list"));
    press(&mut model, "e");
    let Some(Effect::Extract(extract)) = key(&mut model, Key::Enter) else { panic!() };
    assert_eq!(extract.layers, 2);
}

#[test]
fn q_goes_back_before_it_leaves() {
    let (_shelf, mut model) = model(80, 24);
    for opens in ["?", "i", "t"] {
        press(&mut model, opens);
        assert!(model.cover.is_some(), "{opens}");
        assert_eq!(press(&mut model, "q"), None);
        assert!(model.cover.is_none(), "{opens}");
    }
    // A letter of a filter is none of these keys, but Ctrl-C is always what it is.
    press(&mut model, "/q");
    assert_eq!(model.filter, "q");
    assert_eq!(key(&mut model, Key::Ctrl('c')), Some(Effect::Quit));
    key(&mut model, Key::Esc);
    assert_eq!(key(&mut model, Key::Ctrl('z')), Some(Effect::Suspend));
    assert_eq!(press(&mut model, "q"), Some(Effect::Quit));
}

#[test]
fn layers_are_walked_on_the_left() {
    let (_shelf, mut model) = model(80, 24);
    key(&mut model, Key::Tab);
    assert_eq!(model.pane, Pane::Layers);
    key(&mut model, Key::Up);
    assert_eq!((model.layer, model.span().below, model.span().to), (1, 1, 2));
    press(&mut model, "a");
    assert_eq!((model.span().below, model.span().to), (1, 2));
    key(&mut model, Key::End);
    assert_eq!((model.span().below, model.span().to), (1, 3));
    key(&mut model, Key::Home);
    assert_eq!((model.span().below, model.span().to), (0, 1));
    key(&mut model, Key::Enter);
    assert!(matches!(&model.cover, Some(Cover::Lines { title, .. }) if title == "Layer 0"));
}

#[test]
fn clicks_and_the_wheel_do_what_keys_do() {
    let (_shelf, mut model) = model(80, 24);
    // The second row of the tree: below title, border, heading and the root.
    model.update(ModelEvent::Click(40, 4));
    assert_eq!(here(&model), "/app");
    model.update(ModelEvent::Click(40, 4));
    assert!(shown(&model).contains(&"/app/data".to_owned()));
    model.update(ModelEvent::Click(5, 4));
    assert_eq!((model.layer, model.pane), (1, Pane::Layers));
    model.update(ModelEvent::Wheel { column: 5, row: 4, down: false });
    assert_eq!(model.layer, 0);
    model.update(ModelEvent::Wheel { column: 40, row: 4, down: true });
    assert!(model.rows.cursor() > 0);
    // Nothing is there.
    model.update(ModelEvent::Click(40, 22));
    model.update(ModelEvent::Click(400, 220));
}

#[test]
fn pasted_text_is_typed() {
    let (_shelf, mut model) = model(80, 24);
    model.update(ModelEvent::Paste("q".to_owned()));
    assert_eq!(model.filter, "");
    press(&mut model, "/");
    model.update(ModelEvent::Paste("main\n.py".to_owned()));
    assert_eq!(model.filter, "main.py");
    assert_eq!(here(&model), "/app/main.py");
}
