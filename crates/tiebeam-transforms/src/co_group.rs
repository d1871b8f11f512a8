//! Several PCollections brought together by key.
//!
//! Each input's values are encoded and marked with its number, grouped once, and told apart again; the results are decoded
//! only when they are iterated.

use tiebeam_core::coder::{Coder, kv_coder};
use tiebeam_core::{Bytes, Element, Iterable, Nesting};
use tiebeam_graph::{PCollection, PTransform, composite};

/// The values of each key in either of two PCollections. Beam's `CoGroupByKey`.
///
/// ```
/// # use tiebeam_graph::{Create, PTransform, Pipeline};
/// # let p = Pipeline::new();
/// use tiebeam_transforms::co_group_by_key;
/// let emails = p.apply(Create::of([("amy".to_owned(), "a@x".to_owned())]));
/// let ages = p.apply(Create::of([("amy".to_owned(), 31i64)]));
/// let joined = emails.apply(co_group_by_key(&ages)); // ("amy", (["a@x"], [31]))
/// ```
pub fn co_group_by_key<K: Element, A: Element, B: Element>(
    other: &PCollection<(K, B)>,
) -> impl PTransform<PCollection<(K, A)>, Output = PCollection<(K, (Iterable<A>, Iterable<B>))>> {
    composite("CoGroupByKey", move |input: PCollection<(K, A)>| {
        let (a, b) = (input.value_coder(), other.value_coder());
        let marked = [marked(&input, 0), marked(other, 1)];
        let coder = kv_coder(
            input.key_coder(),
            kv_coder(
                tiebeam_core::iterable::iterable_coder(a.clone()),
                tiebeam_core::iterable::iterable_coder(b.clone()),
            ),
        );
        let grouped = input.pipeline().flatten(marked).group_by_key();
        grouped
            .step("Unmark")
            .map(move |(key, values)| {
                let [x, y] = apart::<2>(&values);
                (key, (x.iterable(&a), y.iterable(&b)))
            })
            .with_coder(coder)
    })
}

/// The values of each key in any of three PCollections.
pub fn co_group_by_key3<K: Element, A: Element, B: Element, C: Element>(
    second: &PCollection<(K, B)>,
    third: &PCollection<(K, C)>,
) -> impl PTransform<PCollection<(K, A)>, Output = PCollection<(K, (Iterable<A>, Iterable<B>, Iterable<C>))>>
{
    composite("CoGroupByKey", move |input: PCollection<(K, A)>| {
        let (a, b, c) = (input.value_coder(), second.value_coder(), third.value_coder());
        let grouped =
            input.pipeline().flatten([marked(&input, 0), marked(second, 1), marked(third, 2)]).group_by_key();
        let coder = kv_coder(input.key_coder(), <(Iterable<A>, Iterable<B>, Iterable<C>)>::coder());
        grouped
            .step("Unmark")
            .map(move |(key, values)| {
                let [x, y, z] = apart::<3>(&values);
                (key, (x.iterable(&a), y.iterable(&b), z.iterable(&c)))
            })
            .with_coder(coder)
    })
}

type Marked<K> = PCollection<(K, (u32, Bytes))>;

fn marked<K: Element, V: Element>(input: &PCollection<(K, V)>, mark: u32) -> Marked<K> {
    let value = input.value_coder();
    let coder = kv_coder(input.key_coder(), <(u32, Bytes)>::coder());
    let dofn = Mark { mark, value, key: std::marker::PhantomData };
    input.step(format!("Mark{mark}")).apply(tiebeam_graph::ParDo::new(dofn).with_coder(coder))
}

struct Mark<K, V> {
    mark: u32,
    value: Coder<V>,
    key: std::marker::PhantomData<fn(K)>,
}

impl<K, V> Clone for Mark<K, V> {
    fn clone(&self) -> Self {
        Mark { mark: self.mark, value: self.value.clone(), key: std::marker::PhantomData }
    }
}

impl<K: Element, V: Element> tiebeam_core::DoFn for Mark<K, V> {
    type In = (K, V);
    type Out = (K, (u32, Bytes));

    fn process(
        &mut self,
        (key, value): (K, V),
        _: &tiebeam_core::ElementContext<'_>,
        out: &mut tiebeam_core::Output<Self::Out>,
    ) -> tiebeam_core::Result<()> {
        let mut encoded = Vec::new();
        self.value.encode(&value, &mut encoded, Nesting::Nested)?;
        out.emit((key, (self.mark, encoded.into())));
        Ok(())
    }
}

#[derive(Default)]
struct Part {
    chunks: Vec<Bytes>,
    count: usize,
}

impl Part {
    fn iterable<T: Element>(self, coder: &Coder<T>) -> Iterable<T> {
        Iterable::encoded(self.chunks, self.count, coder.clone())
    }
}

fn apart<const N: usize>(values: &Iterable<(u32, Bytes)>) -> [Part; N] {
    let mut parts: [Part; N] = std::array::from_fn(|_| Part::default());
    for (mark, encoded) in values {
        if let Some(part) = parts.get_mut(mark as usize) {
            part.chunks.push(encoded);
            part.count += 1;
        }
    }
    parts
}
