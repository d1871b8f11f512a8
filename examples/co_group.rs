//! CoGroup: what customers ordered and what they wrote, brought together by name, with what all steps know read from the side.
//!
//! ```text
//! $ cargo run -p tiebeam --example co_group -- --output out/co_group
//! $ sort out/co_group-*
//! amy: 3 orders for 1338 (53 %); wrote: Thank you
//! ben: 2 orders for 1048 (42 %), known as Benny and Mr B; wrote: It is here now / Where is my parcel?
//! cleo: 1 orders for 99 (3 %), known as C; wrote nothing
//! dora: nothing ordered; wrote: Do you sell kites?
//! ```

use std::process::ExitCode;

use tiebeam::core::{SideMap, SideMultimap, View};
use tiebeam::io::text;
use tiebeam::prelude::*;

/// Prices are made comparable by a map of rates; what is shown of a customer needs the sum of all and a table of nicknames.
pub fn build(p: &Pipeline, options: &Options) {
    let output = if options.output.is_empty() { "out/co_group" } else { &options.output };
    let rates = [("EUR", 100), ("GBP", 116), ("JPY", 1)].map(|(name, cents)| (name.to_owned(), cents));
    let rates = p.step("Rates").apply(Create::of(rates)).as_map();
    let nicknames = [("ben", "Mr B"), ("cleo", "C"), ("ben", "Benny")];
    let nicknames = nicknames.map(|(name, nickname)| (name.to_owned(), nickname.to_owned()));
    let nicknames = p.step("Nicknames").apply(Create::of(nicknames)).as_multimap();

    let orders = p
        .step("ReadOrders")
        .apply(text::read("examples/data/orders.csv"))
        .step("InCents")
        .apply(ParDo::new(InCents { rates: rates.view() }).with_side_input(&rates));
    let written = p.step("ReadLetters").apply(text::read("examples/data/letters.csv"));
    let letters = written
        .step("Split")
        .flat_map(|line: String| line.split_once(',').map(|(name, text)| (name.to_owned(), text.to_owned())));
    let all = orders.step("Prices").map(|(_, cents)| cents).step("All").combine_globally(Sum::new());
    let all = all.as_singleton();

    let show = Show { all: all.view(), nicknames: nicknames.view() };
    orders
        .step("Meet")
        .apply(co_group_by_key(&letters))
        .step("Show")
        .apply(ParDo::new(show).with_side_input(&all).with_side_input(&nicknames))
        .step("Write")
        .apply(text::write(output));
}

/// An order's price in cents of a euro, by the day's rates.
#[derive(Clone)]
struct InCents {
    rates: View<SideMap<String, i64>>,
}

impl DoFn for InCents {
    type In = String;
    type Out = (String, i64);

    fn process(
        &mut self,
        line: String,
        cx: &ElementContext<'_>,
        out: &mut Output<(String, i64)>,
    ) -> Result<()> {
        let cells: Vec<&str> = line.split(',').collect();
        let [name, price, currency] = cells[..] else {
            return Err(Error::user(format!("an order is NAME,PRICE,CURRENCY, got `{line}`")));
        };
        let price: i64 = price.parse().map_err(|_| Error::user(format!("`{price}` is no price")))?;
        let rates = cx.side_input(&self.rates)?;
        let rate = rates.get(&currency.to_owned());
        let rate = rate.ok_or_else(|| Error::user(format!("no rate for `{currency}`")))?;
        out.emit((name.to_owned(), price * rate / 100));
        Ok(())
    }
}

/// A line a customer.
#[derive(Clone)]
struct Show {
    all: View<i64>,
    nicknames: View<SideMultimap<String, String>>,
}

impl DoFn for Show {
    type In = (String, (Iterable<i64>, Iterable<String>));
    type Out = String;

    fn process(
        &mut self,
        (name, (orders, letters)): Self::In,
        cx: &ElementContext<'_>,
        out: &mut Output<String>,
    ) -> Result<()> {
        let sorted = |texts: &Iterable<String>| {
            let mut texts = texts.to_vec();
            texts.sort();
            texts
        };
        let all = *cx.side_input(&self.all)?;
        let sum: i64 = orders.iter().sum();
        let ordered = match orders.count() {
            0 => "nothing ordered".to_owned(),
            n => format!("{n} orders for {sum} ({} %)", sum * 100 / all),
        };
        let known = sorted(&cx.side_input(&self.nicknames)?.get(&name)?).join(" and ");
        let known = if known.is_empty() { known } else { format!(", known as {known}") };
        let wrote = sorted(&letters).join(" / ");
        let wrote = if wrote.is_empty() { "wrote nothing".to_owned() } else { format!("wrote: {wrote}") };
        out.emit(format!("{name}: {ordered}{known}; {wrote}"));
        Ok(())
    }
}

/// The program.
pub fn main() -> ExitCode {
    tiebeam::main(build)
}
