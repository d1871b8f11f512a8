//! `#[element(…)]`.

use syn::{Attribute, LitStr, Path};

/// What stands on the type.
#[derive(Default)]
pub(crate) struct OnType {
    /// Where the core crate is.
    pub(crate) core: Option<Path>,
}

/// The attributes of a type.
pub(crate) fn of_type(attributes: &[Attribute]) -> syn::Result<OnType> {
    let mut found = OnType::default();
    for attribute in attributes.iter().filter(|a| a.path().is_ident("element")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("crate") {
                found.core = Some(meta.value()?.parse::<LitStr>()?.parse()?);
                return Ok(());
            }
            Err(meta.error("a type has `#[element(crate = \"path\")]`; names are given to its fields"))
        })?;
    }
    Ok(found)
}

/// The name that a field or variant is given, if any.
pub(crate) fn rename(attributes: &[Attribute]) -> syn::Result<Option<LitStr>> {
    let mut name: Option<LitStr> = None;
    for attribute in attributes.iter().filter(|a| a.path().is_ident("element")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("rename") {
                return Err(meta.error("a field has `#[element(rename = \"name\")]` and nothing else"));
            }
            if name.is_some() {
                return Err(meta.error("a field has one name"));
            }
            let given = meta.value()?.parse::<LitStr>()?;
            if given.value().is_empty() {
                return Err(syn::Error::new(given.span(), "a field's name is not empty"));
            }
            name = Some(given);
            Ok(())
        })?;
    }
    Ok(name)
}

/// Fails where two fields or variants have one name.
pub(crate) fn distinct(names: &[LitStr]) -> syn::Result<()> {
    for (index, name) in names.iter().enumerate() {
        if names[..index].iter().any(|other| other.value() == name.value()) {
            return Err(syn::Error::new(name.span(), format!("the name `{}` is taken", name.value())));
        }
    }
    Ok(())
}
