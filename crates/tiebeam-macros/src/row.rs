//! A struct with named fields: a row.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{FieldsNamed, Ident, LitStr};

use crate::attributes;

/// The implementations for a struct of `fields`.
pub(crate) fn expand(name: &Ident, fields: &FieldsNamed) -> syn::Result<TokenStream> {
    if fields.named.is_empty() {
        return Err(syn::Error::new_spanned(name, "an element holds something: use `()` for nothing"));
    }
    let mut names = Vec::new();
    for field in &fields.named {
        let own = field.ident.as_ref().map(|ident| ident.to_string()).unwrap_or_default();
        let own = LitStr::new(own.trim_start_matches("r#"), field.span());
        names.push(attributes::rename(&field.attrs)?.unwrap_or(own));
    }
    attributes::distinct(&names)?;
    let idents: Vec<_> = fields.named.iter().filter_map(|field| field.ident.as_ref()).collect();
    let types: Vec<_> = fields.named.iter().map(|field| &field.ty).collect();
    let indices: Vec<_> = (0..idents.len()).collect();
    let count = idents.len();
    // Looked at when the program is checked, not only when it is built: refuses an Option of an Option.
    let nullable = types
        .iter()
        .map(|ty| quote_spanned!(ty.span()=> const _: bool = <#ty as __core::coder::RowField>::NULLABLE;));
    Ok(quote! {
        use __core::coder::row_element::derived as __derived;
        #(#nullable)*

        impl __core::Element for #name {
            fn coder() -> __core::Coder<Self> {
                __core::coder::row_element::row_element_coder()
            }

            fn coder_of(spec: &__core::CoderSpec) -> __core::Result<__core::Coder<Self>> {
                __core::coder::row_element::row_element_coder_of(spec)
            }
        }

        impl __core::coder::RowElement for #name {
            fn schema() -> ::std::sync::Arc<__core::Schema> {
                static SCHEMA: __derived::LazyLock<::std::sync::Arc<__core::Schema>> = __derived::LazyLock::new(|| {
                    ::std::sync::Arc::new(__core::Schema::of([
                        #((#names, <#types as __core::coder::RowField>::field_type())),*
                    ]))
                });
                SCHEMA.clone()
            }

            fn to_row(&self) -> __core::Row {
                __core::Row::new(
                    <Self as __core::coder::RowElement>::schema(),
                    [#(<#types as __core::coder::RowField>::to_value(&self.#idents)),*],
                )
            }

            fn from_row(row: &__core::Row) -> __core::Result<Self> {
                ::std::result::Result::Ok(#name { #(#idents: __derived::get::<#types>(row, #names)?),* })
            }

            fn encode_row(&self, out: &mut ::std::vec::Vec<u8>) -> __core::Result<()> {
                __derived::put_absences([#(<#types as __core::coder::RowField>::is_absent(&self.#idents)),*], out);
                #(__derived::encode::<#types>(&self.#idents, #names, out)?;)*
                ::std::result::Result::Ok(())
            }

            fn decode_row(input: &mut __core::Reader) -> __core::Result<Self> {
                let header = __derived::header(#count, input)?;
                ::std::result::Result::Ok(#name {
                    #(#idents: __derived::decode::<#types>(#indices, #names, &header, input)?),*
                })
            }

            fn has_deterministic_fields() -> bool {
                #(<#types as __core::coder::RowField>::is_deterministic())&&*
            }
        }
    })
}
