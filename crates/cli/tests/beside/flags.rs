//! `lsattr` and `chattr`, and what flags forbid.

use std::process::Command;

use strata_testkit::needs;

use super::beside;

const SCRIPT: &str = r#"
trap 'cd /; umount "$2/m"; chattr -Rf -i -a "$2/l" "$2/u"' EXIT
# Without what every file of the file system has, and without order.
flags() { lsattr "$@" 2>&1 | sed 's/-//g; s/^\([a-zA-Z]*\)e /\1 /' | sort; }
write() { try sh -c "echo y $1 $2"; }
python() { try python3 -c "import os; $1"; }

part shown and copied up
touch l/f l/A l/S l/d && mkdir -p l/dir/sub
chattr +A l/A l/dir; chattr +S l/S; chattr +d l/d
on lowerdir=l
flags m; flags -d m m/dir; touch m/new; flags m/new
chattr +A m/new; flags m/new; chattr +d m/new; flags m/new; chattr -A m/new; flags m/new u/new
chmod 600 m/*; flags m u; flags -d m/dir u/dir; chattr =  m/S; flags m/S l/S
ln -s f m/link; mkfifo m/fifo; flags m/link m/fifo; off; on lowerdir=l; flags m; off

part what a lower file forbids
for f in i a both plain id/f ad/f; do mkdir -p "l/$(dirname $f)"; echo x > l/$f; done
chattr +i l/i l/id; chattr +a l/a l/ad; chattr +ia l/both
on lowerdir=l; flags m; flags -d m/id m/ad
for f in m/i m/a m/both; do
  write '>>' $f; write '>' $f; try chmod 600 $f; try chown 1 $f; try touch -c $f
  try touch -d 2001-01-01 $f; try setfattr -n user.a -v b $f; try setfattr -x user.a $f
  try setfacl -m u:5:r $f; try rm -f $f; try mv $f m/j; try ln $f m/k
  try truncate -s 0 $f; try truncate -s 100 $f; try mv m/plain $f; try cat $f
done
python 'os.ftruncate(os.open("m/a", os.O_WRONLY | os.O_APPEND), 1)'
python 'os.posix_fallocate(os.open("m/a", os.O_WRONLY | os.O_APPEND), 0, 100)'
python 'os.open("m/a", os.O_RDWR)'
python 'os.open("m/a", os.O_RDWR | os.O_APPEND)'
flags m/a u/a; getfattr -d -m protattr u/a

part what a lower directory forbids
for d in m/id m/ad; do
  try touch $d/new; try rm $d/f; try mv $d/f m/x; try mv m/plain $d/p; try ln m/plain $d/p
  try mkdir $d/d; try mknod $d/n p; try ln -s x $d/l; try chmod 700 $d; try mv $d m/d2
  try mv $d/new $d/newer; try rm $d/p; try rmdir $d/d; try rmdir $d; try chmod 600 $d/f
  write '>>' $d/f; flags -d $d; ls $d
done
flags -d u/id u/ad; getfattr -d -m protattr u/id u/ad

part later
off; on lowerdir=l; flags m; flags -d m/id m/ad
try touch m/i m/id/new; write '>>' m/a; try rm -f m/a
chattr -i m/i m/id; chattr -a m/a m/ad; flags m; flags -d m/id m/ad
getfattr -d -m protattr u/a u/id u/ad u/i; flags u
try touch m/i m/id/new; write '>' m/a; try rm m/ad/f m/i m/a

part what is set
touch m/n; mkdir m/nd; touch m/nd/x; chattr +i m/n m/nd; flags m/n u/n; flags -d m/nd u/nd
write '>' m/n; try touch m/nd/y; try rm m/n; try rm m/nd/x; try mv m/nd m/ne; try mv m/n m/ne
write '>' m/nd/x; chattr +a m/nd; flags -d m/nd; off; on lowerdir=l; flags -d m/nd; try mkdir m/nd/z
chattr -ia m/nd m/n; flags m/n; flags -d m/nd; try rm -r m/nd m/n

part what is open already
touch m/o; exec 3>>m/o; chattr +i m/o; try sh -c 'echo late >&3'; cat m/o
python 'os.ftruncate(3, 0)'; python 'os.fchmod(3, 0o600)'; python 'os.posix_fallocate(3, 0, 9)'
exec 3>&-; write '>' m/o; chattr -i m/o
touch m/p; exec 4<m/p 5<>m/p; flags m/p; try sh -c 'echo text >&5'; cat m/p; flags m/p
exec 4>&- 5>&-

part who may
touch m/u; chown 99 m/u; chmod 777 m
as() { local id=$1; shift; try setpriv --reuid "$id" --clear-groups "$@"; }
as 99 chattr +i m/u; as 99 chattr +A m/u; as 98 chattr +d m/u; as 98 chattr -p 5 m/u
lsattr -p m/u | sed 's/-//g'

part two names at once
touch m/e1 m/e2; chattr +i m/e1
for how in 1 2; do python 'import ctypes
call = ctypes.CDLL(None, use_errno=True).renameat2
print(os.strerror(ctypes.get_errno()) if call(-100, b"m/e2", -100, b"m/e1", '$how') else "moved")'
done
chattr -i m/e1
"#;

#[test]
fn flags_are_shown_set_and_heeded_as_by_the_kernel() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let set = Command::new("chattr").arg("+A").arg(file.path()).output();
    let set = set.is_ok_and(|output| output.status.success());
    if !needs::that(set, "a file system whose files have flags") {
        return;
    }
    let Some((ours, kernel)) = beside(SCRIPT) else { return };
    let refused = kernel.matches("Operation not permitted").count();
    assert!(refused > 60, "{refused} refusals, so it says little:\n{kernel}");
    for (own, wanted) in ours.lines().zip(kernel.lines()) {
        assert_eq!(own, wanted, "in\n{ours}");
    }
    assert_eq!(ours.lines().count(), kernel.lines().count());
}
