//! Tuples of three to six: their parts one after another, each in nested context.
//!
//! Beam has no model coder for them, so they travel as `length_prefix<tiebeam:coder:tuple:v1<parts>>`: runners pass them on
//! unread. Where other languages must read them, derive `Element` for a struct instead.

use super::{Codec, Coder, CoderSpec, LENGTH_PREFIX, Nesting, Reader, length_prefixed, mismatch};
use crate::element::Element;
use crate::error::Result;

const TUPLE: &str = "tiebeam:coder:tuple:v1";

macro_rules! tuples {
    ($($codec:ident ($($part:ident $index:tt),*);)*) => {$(
        struct $codec<$($part),*>($(Coder<$part>),*);

        impl<$($part: 'static),*> Codec<($($part,)*)> for $codec<$($part),*> {
            fn encode(&self, value: &($($part,)*), out: &mut Vec<u8>, _: Nesting) -> Result<()> {
                $(self.$index.encode(&value.$index, out, Nesting::Nested)?;)*
                Ok(())
            }

            fn decode(&self, input: &mut Reader, _: Nesting) -> Result<($($part,)*)> {
                Ok(($(self.$index.decode(input, Nesting::Nested)?,)*))
            }

            fn spec(&self) -> CoderSpec {
                CoderSpec::of(TUPLE, [$(self.$index.spec()),*])
            }

            fn is_deterministic(&self) -> bool {
                $(self.$index.is_deterministic())&&*
            }
        }

        impl<$($part: Element),*> Element for ($($part,)*) {
            fn coder() -> Coder<Self> {
                length_prefixed(Coder::new($codec($($part::coder()),*)))
            }

            fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
                match spec.urn.as_str() {
                    LENGTH_PREFIX => Ok(length_prefixed(Self::coder_of(spec.only_component()?)?)),
                    TUPLE => {
                        let part = |i: usize| spec.components.get(i).ok_or_else(|| mismatch("a tuple", spec));
                        Ok(Coder::new($codec($($part::coder_of(part($index)?)?),*)))
                    }
                    _ => Err(mismatch("a tuple", spec)),
                }
            }
        }
    )*};
}

tuples!(
    Tuple3(A 0, B 1, C 2);
    Tuple4(A 0, B 1, C 2, D 3);
    Tuple5(A 0, B 1, C 2, D 3, E 4);
    Tuple6(A 0, B 1, C 2, D 3, E 4, F 5);
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_round_trip_and_follow_the_tree_they_are_given() {
        let value = (7i64, "seven".to_owned(), Some(vec![1i64, 2]));
        let coder = <(i64, String, Option<Vec<i64>>)>::coder();
        let bytes = coder.to_bytes(&value).unwrap();
        assert_eq!(coder.from_bytes(bytes.clone()).unwrap(), value);
        let again = <(i64, String, Option<Vec<i64>>)>::coder_of(&coder.spec()).unwrap();
        assert_eq!(again.from_bytes(bytes).unwrap(), value);
        assert!(<(i64, String, bool)>::coder_of(&i64::coder().spec()).is_err());
    }
}
