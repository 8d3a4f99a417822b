"""Addresses in pairs: of two persons, and of one. No pair differs in nothing but ASCII's case."""

TWO_PERSONS = [
    ("anna@waßerwerk.example", "anna@wasserwerk.example"),
    ("νίκος@νίκος.example", "νίκος@νίκοσ.example"),
    ("waßer@people.example", "wasser@people.example"),
    ("ﬁona@people.example", "fiona@people.example"),
    ("li\u017fa@people.example", "lisa@people.example"),
    ("mar\u212a@people.example", "mark@people.example"),
    ("\u212bke@people.example", "åke@people.example"),
    ("ıda@people.example", "ida@people.example"),
    ("İda@people.example", "ida@people.example"),
    ("marcοs@people.example", "marcos@people.example"),
    ("μarios\u00b5@people.example", "μariosμ@people.example"),
    ("νικοσ@people.example", "νικος@people.example"),
    ("ａnna@people.example", "anna@people.example"),
    ("éva@people.example", "eva@people.example"),
    ("søren@people.example", "soren@people.example"),
    ("a\u200dnna@people.example", "anna@people.example"),
    ("anna+1@people.example", "anna@people.example"),
    ("a.nna@people.example", "anna@people.example"),
    ('"anna "@people.example', "anna@people.example"),
    ("anna@people.example.org", "anna@people.example"),
]

ONE_PERSONS = [
    ("anna@bücher.example", "Anna@XN--BCHER-KVA.Example"),
    ("anna@BU\u0308CHER.example", "anna@bücher.example"),
    ("anna@waẞerwerk.example", "anna@xn--waerwerk-rya.example"),
    ("anna@i❤.example", "anna@xn--i-7iq.example"),
    ("anna@people.example.", "Anna@people.example"),
    ('"anna.b"@people.example', "anna.b@people.example"),
    ("ÉVA.ŐRY@people.example", "e\u0301va.o\u030bry@people.example"),
    ("É" + "va@people.example", "éva@people.example"),
    ("ΝΊΚΟΣ@people.example", "νίκος@people.example"),
    ("STRAẞE@people.example", "straße@people.example"),
    ("\u1f71lpha@people.example", "\u03aclpha@people.example"),
]
