//! Parses serialised GVariants. Data that is not in normal form is refused: libostree writes only
//! normal form and checks for it, so anything else is damage.

/// The shape of one member of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Fixed size, which is its alignment too: `u`, `t`.
    Fixed(usize),
    /// Variable size, starting at a multiple of that many bytes.
    Variable(usize),
}

/// The members of a tuple, one slice for each of `shapes`; none when the bytes are no such tuple.
pub fn tuple<const N: usize>(bytes: &[u8], shapes: [Shape; N]) -> Option<[&[u8]; N]> {
    let width = offset_width(bytes.len());
    let framed = shapes.iter().rev().skip(1);
    let framed = framed.filter(|s| matches!(s, Shape::Variable(_))).count();
    let body = bytes.len().checked_sub(framed * width)?;
    let mut members = [&bytes[..0]; N];
    let (mut at, mut frame) = (0usize, bytes.len());
    for (index, shape) in shapes.iter().enumerate() {
        let (start, end) = match *shape {
            Shape::Fixed(size) => {
                let start = at.checked_next_multiple_of(size)?;
                (start, start.checked_add(size)?)
            }
            Shape::Variable(alignment) => {
                // Nothing follows a member without bytes, not even padding of its own.
                let start = at.checked_next_multiple_of(alignment)?;
                if index + 1 == N {
                    (start.min(body), body)
                } else {
                    frame -= width;
                    (start, offset(&bytes[frame..frame + width]))
                }
            }
        };
        if start > end || end > body {
            return None;
        }
        members[index] = &bytes[start..end];
        at = end;
    }
    Some(members)
}

/// The elements of an array of variable size that each start at a multiple of `alignment` bytes.
pub fn array(bytes: &[u8], alignment: usize) -> Option<Vec<&[u8]>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let width = offset_width(bytes.len());
    let last = bytes.len().checked_sub(width)?;
    let body = offset(&bytes[last..]);
    let ends = bytes.get(body..)?;
    // An array with bytes has elements, each with its offset.
    if ends.is_empty() || ends.len() % width != 0 {
        return None;
    }
    let mut elements = Vec::with_capacity(ends.len() / width);
    let mut at = 0usize;
    for end in ends.chunks_exact(width) {
        let (start, end) = (at.checked_next_multiple_of(alignment)?, offset(end));
        if start > end || end > body {
            return None;
        }
        elements.push(&bytes[start..end]);
        at = end;
    }
    Some(elements)
}

/// The text of a string: UTF-8 up to the NUL that ends it.
pub fn string(bytes: &[u8]) -> Option<&str> {
    let text = bytes.strip_suffix(b"\0")?;
    let text = std::str::from_utf8(text).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// The value in a variant, and its type.
pub fn variant(bytes: &[u8]) -> Option<(&[u8], &str)> {
    let separator = bytes.iter().rposition(|byte| *byte == 0)?;
    let kind = std::str::from_utf8(&bytes[separator + 1..]).ok()?;
    Some((&bytes[..separator], kind))
}

/// A 32-bit number as OSTree stores it.
pub fn big_endian_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A 64-bit number as OSTree stores it.
pub fn big_endian_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Bytes that each framing offset of a container of that size has.
fn offset_width(size: usize) -> usize {
    match size as u64 {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn offset(bytes: &[u8]) -> usize {
    let number = bytes.iter().rev();
    let number = number.fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::ostree::gvariant::{self as write, Tuple};

    /// glib of Debian 12 takes such an array for an empty one, and says that it is in normal form.
    #[test]
    fn an_array_that_ends_with_its_bytes_is_damaged() {
        let mut written = write::array([b"an element".to_vec()]);
        assert_eq!(array(&written, 1), Some(vec![&b"an element"[..]]));
        let len = written.len();
        written[len - 1] = u8::try_from(len).unwrap();
        assert_eq!(array(&written, 1), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            pairs in prop::collection::vec(
                (prop::collection::vec(1u8.., 0..300), prop::collection::vec(any::<u8>(), 0..300)),
                0..40,
            ),
            number in any::<u32>(),
        ) {
            let written = write::xattrs(&pairs);
            let read: Vec<_> = array(&written, 1).unwrap().into_iter().map(|element| {
                let [name, value] = tuple(element, [Shape::Variable(1); 2]).unwrap();
                (name.strip_suffix(b"\0").unwrap().to_vec(), value.to_vec())
            }).collect();
            prop_assert_eq!(read, pairs);

            let mut odd = Tuple::default();
            odd.string("a").align(4).bytes(&number.to_be_bytes());
            odd.bytes(&written).end_member();
            odd.align(8).bytes(&7u64.to_be_bytes()).bytes(b"end");
            let odd = odd.finish();
            let shapes = [
                Shape::Variable(1),
                Shape::Fixed(4),
                Shape::Variable(1),
                Shape::Fixed(8),
                Shape::Variable(1),
            ];
            let [text, four, rest, eight, end] = tuple(&odd, shapes).unwrap();
            prop_assert_eq!(string(text), Some("a"));
            prop_assert_eq!(big_endian_u32(four), Some(number));
            prop_assert_eq!(rest, written.as_slice());
            prop_assert_eq!(big_endian_u64(eight), Some(7));
            prop_assert_eq!(end, b"end");
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let shapes = [Shape::Variable(8), Shape::Fixed(4), Shape::Variable(1), Shape::Variable(1)];
            if let Some(members) = tuple(&bytes, shapes) {
                prop_assert!(members.iter().map(|m| m.len()).sum::<usize>() <= bytes.len());
            }
            for alignment in [1, 8] {
                if let Some(elements) = array(&bytes, alignment) {
                    prop_assert!(elements.iter().map(|e| e.len()).sum::<usize>() <= bytes.len());
                }
            }
            variant(&bytes);
            string(&bytes);
        }
    }
}
