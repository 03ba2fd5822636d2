//! What is refused, with the words for it, and that nothing is read after that.

use super::*;

#[test]
fn refuses_what_is_in_doubt_and_says_where() {
    let file = || member(b'0', "usr/file", b"content");
    let mut wrong_sum = file();
    wrong_sum[0] ^= 1;
    let sparse = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")];
    for (archive, why) in [
        (
            wrong_sum.clone(),
            "header at byte 0: the header's checksum is wrong",
        ),
        (
            [file(), wrong_sum].concat(),
            "header at byte 1024: the header's checksum",
        ),
        (
            [file(), vec![0; BLOCK], file()].concat(),
            "single block of zeros",
        ),
        (file()[..300].to_vec(), "cut short after 300 of 512 bytes"),
        (
            file()[..515].to_vec(),
            "cut short in the member 'usr/file', at byte 515",
        ),
        (
            file()[..519].to_vec(),
            "cut short in the member 'usr/file', at byte 519",
        ),
        (
            file()[..1023].to_vec(),
            "cut short in the member 'usr/file', at byte 1023",
        ),
        (
            with(file(), 124, b"0000000008"),
            "size of the member 'usr/file' is not a number",
        ),
        (
            with(file(), 124, &[0xff; 12]),
            "size of the member 'usr/file' is negative: -1",
        ),
        (
            with(file(), 136, b"x"),
            "time of the member 'usr/file' is not a number",
        ),
        (
            with(file(), 108, &[0xff; 8]),
            "owner of the member 'usr/file' is out of range: -1",
        ),
        (
            with(file(), 116, b"\x80\0\0\x01\0\0\0\0"),
            "group of the member 'usr/file' is out of range: 4294967296",
        ),
        (
            with(file(), 100, b"rw-r--r-"),
            "mode of the member 'usr/file' is not a number",
        ),
        (
            [pax(&sparse), file()].concat(),
            "'usr/file' is a sparse file",
        ),
        (with(file(), 156, b"S"), "'usr/file' is a sparse file"),
        (
            header(b'L', "l", (1 << 20) + 1),
            "type 'L' has 1048577 bytes",
        ),
        (
            header(b'x', "x", (1 << 20) + 1),
            "type 'x' has 1048577 bytes",
        ),
        (
            header(b'g', "g", (1 << 20) + 1),
            "type 'g' has 1048577 bytes",
        ),
        (header(b'K', "k", 600), "cut short in a record of type 'K'"),
        (pax(&[("path", "a")]), "ends at byte 1024 with records"),
        (
            [pax(&[("path", "a")]), END.to_vec()].concat(),
            "with records about a member",
        ),
        (
            [pax(&[]), pax(&[]), file()].concat(),
            "two sets of PAX records",
        ),
        (
            [member(b'x', "x", b"9 junk"), file()].concat(),
            "a PAX record is damaged: '9 junk'",
        ),
        ([pax(&[("uid", "-1")]), file()].concat(), "uid is '-1'"),
        (
            [pax(&[("size", "9223372036854775808")]), file()].concat(),
            "'usr/file' states 9223372036854775808 bytes, more",
        ),
        (
            [member(b'g', "g", record("uid", "0").as_bytes()), file()].concat(),
            "a global header sets 'uid'",
        ),
        (
            [pax(&[("path", "a")]), member(b'L', "l", b"b\0"), file()].concat(),
            "two names, 'b' in a GNU record and 'a' in a PAX record",
        ),
        (header(b'2', "soft", 0), "the link 'soft' has the target ''"),
        (header(b'1', "hard", 0), "the link 'hard' has the target ''"),
        (
            [pax(&[("linkpath", "a\0b")]), header(b'2', "soft", 0)].concat(),
            "the link 'soft' has the target 'a\\0b'",
        ),
        (member(b'5', "dir", b"x"), "'dir' states 1 bytes of content"),
        (
            member(b'0', "dir/", b"x"),
            "'dir/' states 1 bytes of content",
        ),
        (
            member(b'6', "fifo", b"x"),
            "'fifo' states 1 bytes of content",
        ),
    ] {
        let error = format!("{:#}", read(&*archive).unwrap_err());
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[test]
fn nothing_follows_an_error() {
    let mut archive = member(b'0', "a", b"");
    archive[0] ^= 1;
    archive.extend(member(b'0', "b", b""));
    let mut reader = TarReader::new(&*archive);
    assert!(reader.next_entry().is_err());
    assert!(reader.next_entry().is_err());
}

#[test]
fn a_record_without_end_is_not_even_begun() {
    for flag in [b'L', b'K', b'x', b'g'] {
        let header = with(header(flag, "a", 0), 124, b"\x80\0\0\0\0\x10\0\0\0\0\0\0");
        let header = header.as_slice();
        let endless = io::repeat(b'a').take(u64::MAX);
        let mut reader = TarReader::new(header.chain(endless));
        let error = format!("{:#}", reader.next_entry().unwrap_err());
        assert!(error.contains("only up to 1048576"), "{error}");
        let (_, endless) = reader.into_inner().into_inner();
        assert_eq!(endless.limit(), u64::MAX, "nothing of it was read");
    }
}
