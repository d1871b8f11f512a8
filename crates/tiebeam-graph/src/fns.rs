//! DoFns of closures: thin shells, so that only the inner loop is compiled for each closure.

use std::marker::PhantomData;
use std::sync::Arc;

use tiebeam_core::{
    Batch, BundleContext, DoFn, Element, ElementContext, Error, Failed, Failure, Meta, Output, OutputTag,
    Result, SetupContext,
};

macro_rules! closure_fn {
    ($(#[$doc:meta])* $name:ident<$($p:ident),*>) => {
        $(#[$doc])*
        pub struct $name<F, $($p),*> {
            f: Arc<F>,
            types: PhantomData<fn($($p),*)>,
        }

        impl<F, $($p),*> $name<F, $($p),*> {
            /// Of that closure.
            pub fn new(f: F) -> Self {
                $name { f: Arc::new(f), types: PhantomData }
            }
        }

        impl<F, $($p),*> Clone for $name<F, $($p),*> {
            fn clone(&self) -> Self {
                $name { f: self.f.clone(), types: PhantomData }
            }
        }
    };
}

closure_fn!(
    /// One result for each element.
    MapFn<T, O>
);
closure_fn!(
    /// Any number of results for each element.
    FlatMapFn<T, I>
);
closure_fn!(
    /// Keeps some elements.
    FilterFn<T>
);

impl<T: Element, O: Element, F: Fn(T) -> O + Send + Sync + 'static> DoFn for MapFn<F, T, O> {
    type In = T;
    type Out = O;

    fn process(&mut self, element: T, _: &ElementContext<'_>, out: &mut Output<O>) -> Result<()> {
        out.emit((self.f)(element));
        Ok(())
    }

    fn process_batch(&mut self, batch: Batch<T>, _: &BundleContext<'_>, out: &mut Output<O>) -> Result<()> {
        let f = &*self.f;
        out.forward(Batch { values: batch.values.into_iter().map(f).collect(), meta: batch.meta });
        Ok(())
    }
}

impl<T: Element, I, F> DoFn for FlatMapFn<F, T, I>
where
    I: IntoIterator + 'static,
    I::Item: Element,
    F: Fn(T) -> I + Send + Sync + 'static,
{
    type In = T;
    type Out = I::Item;

    fn process(&mut self, element: T, _: &ElementContext<'_>, out: &mut Output<I::Item>) -> Result<()> {
        out.emit_all((self.f)(element));
        Ok(())
    }
}

impl<T: Element, F: Fn(&T) -> bool + Send + Sync + 'static> DoFn for FilterFn<F, T> {
    type In = T;
    type Out = T;

    fn process(&mut self, element: T, _: &ElementContext<'_>, out: &mut Output<T>) -> Result<()> {
        if (self.f)(&element) {
            out.emit(element);
        }
        Ok(())
    }

    fn process_batch(&mut self, batch: Batch<T>, _: &BundleContext<'_>, out: &mut Output<T>) -> Result<()> {
        let f = &*self.f;
        let Batch { mut values, meta } = batch;
        let meta = match meta {
            Meta::Uniform(info) => {
                values.retain(f);
                Meta::Uniform(info)
            }
            Meta::Each(mut infos) => {
                let kept: Vec<bool> = values.iter().map(f).collect();
                let (mut i, mut j) = (0, 0);
                values.retain(|_| {
                    i += 1;
                    kept[i - 1]
                });
                infos.retain(|_| {
                    j += 1;
                    kept[j - 1]
                });
                Meta::Each(infos)
            }
        };
        out.forward(Batch { values, meta });
        Ok(())
    }
}

/// One result for each element, or a dead letter.
pub struct TryMapFn<F, T, O, E> {
    f: Arc<F>,
    failed: OutputTag<Failed<T>>,
    step: Arc<str>,
    types: PhantomData<fn(T, E) -> O>,
}

impl<F, T, O, E> TryMapFn<F, T, O, E> {
    /// Of that closure; what it fails on goes to `failed`.
    pub fn new(f: F, failed: OutputTag<Failed<T>>) -> Self {
        TryMapFn { f: Arc::new(f), failed, step: "".into(), types: PhantomData }
    }
}

impl<F, T, O, E> Clone for TryMapFn<F, T, O, E> {
    fn clone(&self) -> Self {
        TryMapFn {
            f: self.f.clone(),
            failed: self.failed.clone(),
            step: self.step.clone(),
            types: PhantomData,
        }
    }
}

impl<T, O, E, F> DoFn for TryMapFn<F, T, O, E>
where
    T: Element,
    O: Element,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    F: Fn(T) -> Result<O, E> + Send + Sync + 'static,
{
    type In = T;
    type Out = O;

    fn setup(&mut self, cx: &SetupContext) -> Result<()> {
        self.step = cx.step().into();
        Ok(())
    }

    fn process(&mut self, element: T, _: &ElementContext<'_>, out: &mut Output<O>) -> Result<()> {
        match (self.f)(element.clone()) {
            Ok(result) => out.emit(result),
            Err(error) => {
                let failure = Failure::of(&self.step, &Error::user(error));
                out.emit_to(&self.failed, Failed { element, failure });
            }
        }
        Ok(())
    }
}
