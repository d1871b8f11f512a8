//! Rows as structs.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use tiebeam_core::{Coder, Error, ErrorKind, Result, Row, RowElement, SourcePlace, Value};

use crate::json::write_value;
use crate::ranges::FileRange;
use crate::read::{Listing, RangeReader, Records};

/// Reads rows with `R` and makes structs of them.
pub struct Typed<R, T> {
    reader: R,
    element: PhantomData<fn() -> T>,
}

impl<R, T> Typed<R, T> {
    /// What reads the rows.
    pub fn new(reader: R) -> Self {
        Typed { reader, element: PhantomData }
    }

    /// Changes the options of what reads the rows.
    #[must_use]
    pub fn map_inner(self, change: impl FnOnce(R) -> R) -> Self {
        Typed::new(change(self.reader))
    }
}

impl<R: Clone, T> Clone for Typed<R, T> {
    fn clone(&self) -> Self {
        Typed::new(self.reader.clone())
    }
}

impl<R: fmt::Debug, T> fmt::Debug for Typed<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.reader).finish()
    }
}

impl<R: RangeReader<Record = Row>, T: RowElement> RangeReader for Typed<R, T> {
    type Record = T;

    fn label(&self) -> &'static str {
        self.reader.label()
    }

    fn coder(&self) -> Coder<T> {
        T::coder()
    }

    fn check(&self) -> Result<()> {
        self.reader.check()
    }

    fn is_splittable(&self) -> bool {
        self.reader.is_splittable()
    }

    fn read(&self, range: &FileRange, listing: &Listing, records: &mut Records<'_, T>) -> Result<()> {
        let records = RefCell::new(records);
        let mut emit = |rows: Vec<Row>| {
            let mut records = records.borrow_mut();
            for row in rows {
                match T::from_row(&row) {
                    Ok(element) => records.push(element)?,
                    Err(error) => misfit(&mut records, row, &error, range)?,
                }
            }
            Ok(())
        };
        let mut fail = |bytes: Bytes, error: Error| records.borrow_mut().bad(&bytes, error);
        let mut rows = Records::new(&mut emit, &mut fail);
        self.reader.read(range, listing, &mut rows)?;
        rows.flush()
    }
}

/// A row of the right schema that is no such struct all the same: an enum's name that isn't one, a negative size.
fn misfit<T>(records: &mut Records<'_, T>, row: Row, error: &Error, range: &FileRange) -> Result<()> {
    let mut text = Vec::new();
    write_value(&Value::Row(row), &mut text)?;
    let error = Error::new(ErrorKind::InvalidData, "TB0427", error.message())
        .at_place(SourcePlace { file: range.path.clone(), ..SourcePlace::default() });
    records.bad(&text, error)
}

#[cfg(test)]
mod tests {
    use tiebeam_core::Element;

    use super::*;
    use crate::read::testing::{file, read_cut};

    #[derive(Debug, Clone, PartialEq, Element)]
    struct Animal {
        name: String,
        kind: Kind,
        legs: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Element)]
    enum Kind {
        Cat,
        Spider,
    }

    #[test]
    fn structs_are_read_and_what_fits_none_is_told() {
        let (_dir, path) = file("x.csv", b"legs,kind,name\n8,Spider,a\n,Cat,b\n4,Dog,c\nx,Cat,d\n");
        let reader = Typed::<_, Animal>::new(crate::csv::CsvReader::new(Animal::schema()));
        let (good, bad) = read_cut(&reader, &path, &Listing::default(), &[]).unwrap();
        let animal = |name: &str, kind, legs| Animal { name: name.into(), kind, legs };
        assert_eq!(good, [animal("a", Kind::Spider, Some(8)), animal("b", Kind::Cat, None)]);
        let codes: Vec<_> = bad.iter().map(|(bytes, error)| (&**bytes, error.code())).collect();
        let dog = br#"{"name":"c","kind":"Dog","legs":4}"#;
        // The rows of a batch are looked at together, after the lines.
        assert_eq!(codes, [(&b"x,Cat,d"[..], "TB0422"), (&dog[..], "TB0427")]);
    }

    #[test]
    fn pipelines_are_built_of_them() {
        let p = tiebeam_graph::Pipeline::new();
        p.apply(crate::csv::read_as::<Animal>("a/*.csv")).map(|animal| animal.name);
        p.apply(crate::json::read_as::<Animal>("a/*.json").with_error_handling())
            .records
            .map(|animal| animal.name);
        p.build().unwrap();
    }
}
