"""Compares strata's numbers with computed ones, one by one, and ends with a summary."""
import sys

bad = []
count = 0


def equal(what, said, computed):
    """Compares one number (or list)."""
    global count
    count += 1
    if said != computed:
        bad.append(what)
        print("DIFFERENT: %s: strata says %s, computed %s" % (what, said, computed))


def end():
    """Prints the summary; the exit status is 0 only if nothing was different."""
    print("%d numbers compared, %d different" % (count, len(bad)))
    sys.exit(bool(bad))
