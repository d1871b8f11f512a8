//! What is no row: a struct around one value, and an enum without fields.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DataEnum, Field, Fields, Ident, LitStr};

use crate::attributes;

/// A struct with one unnamed field: travels as the field does.
pub(crate) fn expand_wrapper(name: &Ident, field: &Field) -> TokenStream {
    let inner = &field.ty;
    quote! {
        impl __core::Element for #name {
            fn coder() -> __core::Coder<Self> {
                __core::coder::row_element::wrapped_coder(
                    <#inner as __core::Element>::coder(), |outer| &outer.0, #name,
                )
            }

            fn coder_of(spec: &__core::CoderSpec) -> __core::Result<__core::Coder<Self>> {
                let inner = <#inner as __core::Element>::coder_of(spec)?;
                ::std::result::Result::Ok(
                    __core::coder::row_element::wrapped_coder(inner, |outer| &outer.0, #name),
                )
            }
        }

        impl __core::coder::RowField for #name {
            const NULLABLE: bool = <#inner as __core::coder::RowField>::NULLABLE;

            fn field_type() -> __core::FieldType {
                <#inner as __core::coder::RowField>::field_type()
            }

            fn is_deterministic() -> bool {
                <#inner as __core::coder::RowField>::is_deterministic()
            }

            fn is_absent(&self) -> bool {
                __core::coder::RowField::is_absent(&self.0)
            }

            fn absent() -> ::std::option::Option<Self> {
                <#inner as __core::coder::RowField>::absent().map(#name)
            }

            fn encode_field(&self, out: &mut ::std::vec::Vec<u8>) -> __core::Result<()> {
                __core::coder::RowField::encode_field(&self.0, out)
            }

            fn decode_field(input: &mut __core::Reader) -> __core::Result<Self> {
                <#inner as __core::coder::RowField>::decode_field(input).map(#name)
            }

            fn encode_item(&self, out: &mut ::std::vec::Vec<u8>) -> __core::Result<()> {
                __core::coder::RowField::encode_item(&self.0, out)
            }

            fn decode_item(input: &mut __core::Reader) -> __core::Result<Self> {
                <#inner as __core::coder::RowField>::decode_item(input).map(#name)
            }

            fn to_value(&self) -> __core::Value {
                __core::coder::RowField::to_value(&self.0)
            }

            fn from_value(value: &__core::Value) -> __core::Result<Self> {
                <#inner as __core::coder::RowField>::from_value(value).map(#name)
            }
        }
    }
}

/// An enum without fields: travels as the name of its variant.
pub(crate) fn expand_enum(name: &Ident, data: &DataEnum) -> syn::Result<TokenStream> {
    if data.variants.is_empty() {
        return Err(syn::Error::new_spanned(
            name,
            "an enum without variants has no values that could travel",
        ));
    }
    let mut names = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(syn::Error::new_spanned(
                variant,
                "Beam's schemas have no type for an enum with fields: use a struct with `Option` fields",
            ));
        }
        let own = LitStr::new(variant.ident.to_string().trim_start_matches("r#"), variant.ident.span());
        names.push(attributes::rename(&variant.attrs)?.unwrap_or(own));
    }
    attributes::distinct(&names)?;
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let type_name = name.to_string();
    Ok(quote! {
        use __core::coder::row_element::derived as __derived;

        impl __core::Element for #name {
            fn coder() -> __core::Coder<Self> {
                __core::coder::row_element::named_coder()
            }
        }

        impl __core::coder::NamedElement for #name {
            fn name(&self) -> &'static str {
                match self {
                    #(#name::#variants => #names,)*
                }
            }

            fn from_name(name: &str) -> __core::Result<Self> {
                match name {
                    #(#names => ::std::result::Result::Ok(#name::#variants),)*
                    other => ::std::result::Result::Err(__derived::no_variant(other, #type_name, &[#(#names),*])),
                }
            }
        }

        impl __core::coder::RowField for #name {
            fn field_type() -> __core::FieldType {
                __core::FieldType::required(__core::TypeKind::String)
            }

            fn encode_field(&self, out: &mut ::std::vec::Vec<u8>) -> __core::Result<()> {
                __derived::encode_name(self, out);
                ::std::result::Result::Ok(())
            }

            fn decode_field(input: &mut __core::Reader) -> __core::Result<Self> {
                __derived::decode_name(input)
            }

            fn to_value(&self) -> __core::Value {
                __core::Value::String(__core::coder::NamedElement::name(self).into())
            }

            fn from_value(value: &__core::Value) -> __core::Result<Self> {
                __core::coder::NamedElement::from_name(__derived::name_of(value)?)
            }
        }
    })
}
