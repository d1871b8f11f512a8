//! `#[derive(Element)]`: gives a type its place in a pipeline.
//!
//! - A struct with named fields becomes a Beam row: its schema from its fields' types, and a coder that writes the fields
//!   straight from the struct.
//! - A struct with one unnamed field travels as that field does.
//! - An enum without fields travels as text, the name of its variant.
//!
//! `#[element(rename = "x")]` on a field or variant is the name that others see. The code that is written finds the
//! crates by the manifest of the package that it is written into; `#[element(crate = "path::to::core")]` on the type
//! overrides that.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields};

mod attributes;
mod place;
mod row;
mod simple;

/// Derives `Element`: makes structs Beam rows, and enums text. The type must be `Clone` as well.
#[proc_macro_derive(Element, attributes(element))]
pub fn derive_element(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let attributes = attributes::of_type(&input.attrs)?;
    let core = match attributes.core {
        Some(path) => quote!(#path),
        None => place::core_path(),
    };
    if !input.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(
            &input.generics,
            "an element has no type parameters: its schema must be known; derive it for each concrete type",
        ));
    }
    let body = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => row::expand(&input.ident, fields)?,
            Fields::Unnamed(fields) => match fields.unnamed.first() {
                Some(field) if fields.unnamed.len() == 1 => simple::expand_wrapper(&input.ident, field),
                _ => {
                    return Err(syn::Error::new_spanned(fields, "a row's fields have names: give them some"));
                }
            },
            Fields::Unit => {
                return Err(syn::Error::new_spanned(
                    &input.ident,
                    "an element holds something: use `()` for nothing",
                ));
            }
        },
        Data::Enum(data) => simple::expand_enum(&input.ident, data)?,
        Data::Union(data) => {
            return Err(syn::Error::new_spanned(
                data.union_token,
                "a union cannot be encoded: use a struct or enum",
            ));
        }
    };
    Ok(quote! {
        #[automatically_derived]
        const _: () = {
            use #core as __core;
            #body
        };
    })
}
