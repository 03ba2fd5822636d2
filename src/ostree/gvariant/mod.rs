//! The few GVariant types of OSTree objects, serialised as the GVariant specification says:
//! framing offsets behind a container, as narrow as its size allows; members of a tuple framed
//! from last to first; integers in the byte order that each format asks for.

pub mod read;

use crate::tree::Xattr;

/// `a(ayay)`: names with their NUL, and values; no bytes at all when there are none.
pub fn xattrs(xattrs: &[Xattr]) -> Vec<u8> {
    let elements = xattrs.iter().map(|(name, value)| {
        let mut element = Tuple::default();
        element.bytes(name).bytes(b"\0").end_member();
        element.bytes(value);
        element.finish()
    });
    array(elements)
}

/// An array of elements of variable size, alignment 1.
pub fn array(elements: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    aligned_array(elements, 1)
}

/// An array of elements of variable size that each start at a multiple of `alignment` bytes.
pub fn aligned_array(elements: impl IntoIterator<Item = Vec<u8>>, alignment: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let mut ends = Vec::new();
    for element in elements {
        pad(&mut body, alignment);
        body.extend(element);
        ends.push(body.len());
    }
    frame(body, ends.into_iter())
}

/// Pads with zero bytes to a multiple of `alignment`.
pub fn pad(body: &mut Vec<u8>, alignment: usize) {
    body.resize(body.len().next_multiple_of(alignment), 0);
}

/// A tuple in the making: members in order; [`Tuple::end_member`] after each member of variable
/// size but the last.
#[derive(Debug, Default)]
pub struct Tuple {
    body: Vec<u8>,
    ends: Vec<usize>,
}

impl Tuple {
    /// Appends bytes to the current member.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.extend_from_slice(bytes);
        self
    }

    /// A string member, with its NUL.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes()).bytes(b"\0").end_member()
    }

    /// Pads before a member whose type has that alignment.
    pub fn align(&mut self, alignment: usize) -> &mut Self {
        pad(&mut self.body, alignment);
        self
    }

    /// Ends a member of variable size.
    pub fn end_member(&mut self) -> &mut Self {
        self.ends.push(self.body.len());
        self
    }

    /// The serialised tuple.
    pub fn finish(&mut self) -> Vec<u8> {
        let ends = std::mem::take(&mut self.ends);
        frame(std::mem::take(&mut self.body), ends.into_iter().rev())
    }
}

/// Appends framing offsets, all of the smallest width that can express the final size.
fn frame(mut body: Vec<u8>, ends: impl ExactSizeIterator<Item = usize>) -> Vec<u8> {
    let widths = [(1usize, 0xff_u64), (2, 0xffff), (4, 0xffff_ffff)];
    let width = widths
        .into_iter()
        .find(|(width, limit)| (body.len() + ends.len() * width) as u64 <= *limit)
        .map_or(8, |(width, _)| width);
    for end in ends {
        body.extend_from_slice(&(end as u64).to_le_bytes()[..width]);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_framed() {
        assert_eq!(xattrs(&[]), b"");
        let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        assert_eq!(
            xattrs(&[pair("a", b"1"), pair("bc", b"")]),
            b"a\x001\x02bc\x00\x03\x04\x08",
            "each element ends with where its name ends; the array with where elements end"
        );
    }

    #[test]
    fn offsets_are_as_wide_as_the_whole_asks_for() {
        for (len, width) in [(1, 1), (254, 1), (255, 2), (65_533, 2), (65_534, 4)] {
            assert_eq!(
                frame(vec![0; len], [len].into_iter()).len(),
                len + width,
                "{len}"
            );
        }
    }

    #[test]
    fn members_of_a_tuple_are_framed_backwards() {
        let mut tuple = Tuple::default();
        tuple.string("a").string("bc").bytes(b"z");
        assert_eq!(tuple.finish(), b"a\0bc\0z\x05\x02");
    }
}
