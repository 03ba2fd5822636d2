//! Python's byte code, which records when its source was written (PEP 552, "Specification"): a
//! package that is built again brings the same modules with new times, and all their byte code
//! differs.

/// Bytes of the header: magic number, flags, time and size of the source.
pub const HEADER: usize = 16;
/// Where in it the time is.
const TIME: std::ops::Range<usize> = 8..12;

/// The header of byte code that records a time, without it; `None` where `begin`, the beginning of
/// a file, is none.
///
/// Magic numbers are the release's number in two bytes and `\r\n`
/// (importlib/_bootstrap_external.py); flags other than zero say that a hash of the source is
/// recorded instead.
pub fn without_time(begin: &[u8]) -> Option<[u8; HEADER]> {
    let mut header: [u8; HEADER] = begin.get(..HEADER)?.try_into().ok()?;
    let records_time = header[2..4] == *b"\r\n" && header[4..8] == [0; 4];
    header[TIME].fill(0);
    records_time.then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_byte_code_with_a_time_has_it_taken_out() {
        let with_time = b"\xa7\r\r\n\0\0\0\0\x01\x02\x03\x04\x05\0\0\0code";
        let without = b"\xa7\r\r\n\0\0\0\0\0\0\0\0\x05\0\0\0";
        assert_eq!(without_time(with_time).as_ref(), Some(without));
        assert_eq!(without_time(&with_time[..HEADER - 1]), None);
        let with_hash = b"\xa7\r\r\n\x01\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08code";
        assert_eq!(without_time(with_hash), None);
        assert_eq!(without_time(b"#!/usr/bin/python3\n"), None);
    }
}
