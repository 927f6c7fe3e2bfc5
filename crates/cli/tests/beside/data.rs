//! Layers that have contents alone (overlayfs.rst, "Data-only lower layers").

use strata_testkit::needs;

use super::beside;

const SCRIPT: &str = r#"
trap 'cd /; umount -q "$2/m"' EXIT
mkdir l2 d d2 u2
meta() { # FILE SIZE REDIRECT
  truncate -s $2 $1 && setfattr -n trusted.overlay.metacopy $1
  setfattr -n trusted.overlay.redirect -v "$3" $1
}
mkdir -p d/x d/a d2/a l/x
echo content > d/x/1; chmod 600 d/x/1; touch -d 2001-01-01 d/x/1; setfattr -n user.d -v data d/x/1
meta l/f 8 /x/1; chmod 640 l/f; chown 7:8 l/f; touch -d 2002-02-02 l/f
setfattr -n user.m -v meta l/f; ln l/f l/x/link; echo visible > l/x/2
for layer in d d2; do echo $layer > $layer/a/both; echo only $layer > $layer/a/$layer; done
mkdir d/a/dir; echo deep > d2/a/dir; ln -s /a/d d/a/to; echo to > d2/a/to; echo wh > d/a/.wh.x
meta l/both 2 /a/both; meta l/one 7 /a/d; meta l/two 8 /a/d2; meta l/dir 5 /a/dir
meta l/to 3 /a/to; meta l/wh 3 /a/.wh.x; meta l/top 6 /middle; meta l2/middle 6 /a/d
meta l/real 5 /low; echo lower > l2/low; meta d/a/marked 7 /a/d; meta l/marked 7 /a/marked
meta l/hides 7 /y/d; mkdir d/y; echo hidden > d/y/d; mknod l2/y c 0 0; meta l/gone 3 /a/gone

part shown
on lowerdir=l:l2::d::d2; ls -R m; try getfattr -d m/f; try getfattr -n user.d m/f
stat -c '%a %u:%g %s %y %h' m/f; [ m/f -ef m/x/link ] && echo linked
for f in f both one two dir to wh real hides x/2; do try cat m/$f; done
od -c m/marked; stat -c %s m/gone; cat m/gone > read 2>&1 || echo lost; off

part changed
on lowerdir=l:l2::d::d2
try chmod 600 m/f; getfattr -d -m 'overlay.(meta|redir)' u/f; try cat m/f; try mv m/f m/x/g
try cat m/x/g; try ln m/x/g m/h; try mv m/x m/y; try cat m/y/g m/h
echo more >> m/two; try cat m/two; try truncate -s 4 m/one; try cat m/one; try rm m/both
echo new > m/both; try cat m/both; try mv m/dir m/to; try cat m/to; off

part later
on lowerdir=l:l2::d::d2; ls -R m; for f in y/g h two one both to y/2; do try cat m/$f; done
echo more >> m/h; try cat m/y/g; off; cat d/x/1 d/a/d d2/a/d2 d/a/both; ls -R d d2

part whoever wrote it
mount -t overlay overlay m -o lowerdir=u:l:l2::d::d2,metacopy=on,redirect_dir=follow
for f in y/g h two one both to y/2; do try cat m/$f; done; off

part refused
for lower in l::d:l2 ::d l:::d l:: l::d:: l::d:::d2 l:l2::d::d l::l l::u; do
  on lowerdir=$lower > said 2>&1; mountpoint -q m && echo "$lower: mounted"
done
"#;

#[test]
fn layers_of_data_have_contents_and_no_names() {
    let Some((ours, kernel)) = beside(SCRIPT) else { return };
    if !needs::that(kernel.contains("cat: ok content"), "Linux 6.5, which has such layers") {
        return;
    }
    assert!(kernel.matches(": ok ").count() > 30, "{kernel}");
    for (ours, kernel) in ours.lines().zip(kernel.lines()) {
        assert_eq!(ours, kernel);
    }
    assert_eq!(ours.lines().count(), kernel.lines().count());
}
