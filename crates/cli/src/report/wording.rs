//! The words of the page of many stores: that of one store, with hosts where images stand.
//!
//! Invariant: each phrase is on the page of one store; a test says which one is not there any more.

/// What is said of a store's images, and what of hosts.
const HOSTS: [(&str, &str); 46] = [
    // The frame.
    (
        "so the tiles add up to the store. An image that shares has",
        "so the tiles add up to one \
      store of all. A host that shares has",
    ),
    ("what several images hold is split", "what several hosts hold is split"),
    (
        "larger than what removing it\n    frees, for that is only what it holds alone",
        "larger than \
      what\n    no other host has",
    ),
    ("What each image holds", "What each host holds"),
    (
        "The largest by what they hold alone, which removing them frees.",
        "The largest by what no \
      other host has.",
    ),
    ("The same images, stored in different ways.", "The same hosts, stored in different ways."),
    (">Images</h2>", ">Hosts</h2>"),
    (
        "Bytes of an image's files as its layers have them, nothing shared.",
        "Bytes of the files of \
      all images of a host as their layers have them, nothing shared.",
    ),
    (
        "names, layers and images have it. Of the whole store: what is on disk.",
        "names, layers and \
      images have it. Of all hosts: what one store of all would hold.",
    ),
    (
        "The part of Stored that no other image holds: what removing this image\n      alone \
         frees.",
        "The part of Stored that no other host holds.",
    ),
    ("other images hold it too, and it stays for them.", "other hosts hold it too."),
    (
        "Each content split evenly among the images that hold it",
        "Each content split evenly among \
      the hosts that hold it",
    ),
    (
        "Over all images this adds up to what the store holds",
        "Over all hosts this adds up to what \
      one store of all would hold",
    ),
    // Its title line.
    ("many(data.in_store, \"image\");", "many(data.in_store, \"host\");"),
    ("`The store at ${data.root}: ${", "`The facts in ${data.root}: ${"),
    // The map.
    (
        "\"1 image alone\", \"2 images\", \"3–4 images\", \"5–9 images\", \"10 images or more\"",
        "\"1 \
      host alone\", \"2 hosts\", \"3–4 hosts\", \"5–9 hosts\", \"10 hosts or more\"",
    ),
    ("label: \"Store\"", "label: \"All hosts\""),
    (
        "{ store: \"image\", image: \"layer\" }[place.kind]",
        "{ store: \"host\", image: \"layer\" \
      }[place.kind]",
    ),
    ("store: \"the store\", image: \"image\",", "store: \"all hosts\", image: \"host\","),
    (
        "[\"Removing it frees\", bothSizes(image.unique)]",
        "[\"No other host has\", \
      bothSizes(image.unique)]",
    ),
    ("many(Math.round(holders), \"image\")", "many(Math.round(holders), \"host\")"),
    (
        "\"1 image\" : `${holders.toFixed(1)} images on average`",
        "\"1 host\" : \
      `${holders.toFixed(1)} hosts on average`",
    ),
    ("\"Images with this layer\"", "\"Hosts with this layer\""),
    (
        "\"What is in it is not on this page: strata ls shows it.\"",
        "\"What is in it is not on this \
      page.\"",
    ),
    (
        "`No other image holds anything of ${label}: its tile, its size and what removing it \
         ` +\n      `frees are all",
        "`No other host holds anything of ${label}: its tile and its size ` +\n      \
      `are both",
    ),
    (
        "`Removing it frees the ${size(image.unique)} that it holds alone`",
        "`No other host has \
      ${size(image.unique)} of it`",
    ),
    ("\"Removing it frees nothing, for it holds nothing alone\"", "\"Other hosts have all of it\""),
    ("`other images too and split", "`other hosts too and split"),
    ("`${frees}; the rest stays for the others.`", "`${frees}.`"),
    (
        "{ store: \"Image\", image: \"Layer\" }[here.kind]",
        "{ store: \"Host\", image: \"Layer\" \
      }[here.kind]",
    ),
    // Figures and bars.
    ("card(\"The store holds\"", "card(\"One store of all would hold\""),
    ("\" on disk in all\"", "\" on the disks of all hosts\""),
    (
        "`${many(data.in_store, \"image\")}, ${many(totals.layers",
        "`${many(data.in_store, \"host\")}, \
      ${many(totals.layers",
    ),
    (
        "[\"removing it frees \", sized(largest.unique)] : \"no images\"",
        "[\"no other host has \", \
      sized(largest.unique)] : \"no hosts\"",
    ),
    ("\"in one image alone\"", "\"on one host alone\""),
    ("\"in several images\"", "\"on several hosts\""),
    ("\"in this image alone\"", "\"on this host alone\""),
    (
        "\"in other images too\", color: \"share-3\", value: (image)",
        "\"on other hosts too\", color: \
      \"share-3\", value: (image)",
    ),
    (
        "`The ${items.length} images that hold the most alone. `",
        "`The ${items.length} hosts that \
      hold the most alone. `",
    ),
    ("\"this store\", \"only\"", "\"one store of all\", \"only\""),
    // Tables.
    ("[\"Image\", (image) => imageName(image)]", "[\"Host\", (image) => imageName(image)]"),
    ("\"The images and what they hold\"", "\"The hosts and what they hold\""),
    (
        "`${images.length} of ${data.images.length} images` : \"\"",
        "`${images.length} of \
      ${data.images.length} hosts` : \"\"",
    ),
    ("`Images: ${rows[x].slice", "`Hosts: ${rows[x].slice"),
    ("`Of ${data.images.length} images, alike", "`Of ${data.images.length} hosts, alike"),
    ("`What images have in common, ${rows.length}", "`What hosts have in common, ${rows.length}"),
];

/// A part of the page in the words for hosts.
pub(super) fn of_hosts(part: &str) -> String {
    HOSTS.iter().fold(part.to_owned(), |text, (images, hosts)| text.replace(images, hosts))
}

#[cfg(test)]
mod tests {
    use super::super::page::{FRAME, SCRIPT};
    use super::*;

    #[test]
    fn each_phrase_is_on_the_page() {
        for (images, hosts) in HOSTS {
            let there = FRAME.matches(images).count() + SCRIPT.matches(images).count();
            assert!(there > 0, "{images:?} is not there any more");
            assert!(!images.eq(hosts));
        }
    }

    #[test]
    fn no_image_is_left_in_the_words_of_hosts() {
        let frame = of_hosts(FRAME);
        let text = frame.split("<section class=\"card\" aria-labelledby=\"growth").next();
        let words =
            text.unwrap_or_default().split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let left: Vec<&str> =
            words.filter(|word| ["image", "Image", "Images"].contains(word)).collect();
        assert_eq!(left, [""; 0]);
    }
}
