//! The globals that a state dict's pickle may name; any other is refused by its name.

use tiebeam_core::error::{Error, ErrorKind, Result};

use super::tensor::ScalarType;

/// What a global stands for here. None of them runs anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`, `builtins.dict`
    OrderedDict,
    RebuildTensor,
    RebuildTensorV2,
    RebuildTensorV3,
    /// `torch._utils._rebuild_parameter` and its form with a state
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2`: calls another rebuilder
    RebuildFromType,
    /// A typed storage class
    Storage(ScalarType),
    UntypedStorage,
    /// `torch.float32`, …
    DType(ScalarType),
    /// `torch.Size`
    Size,
    /// Callable, with a result that is of no use here
    Opaque,
    /// `torch.nn.Parameter`, `torch.Tensor`: an argument mostly; made of a tensor, it is that tensor
    Class,
}

/// The global of that name.
///
/// # Errors
/// When it is not one of ours: by name.
pub(super) fn lookup(module: &str, name: &str) -> Result<Global> {
    let known = match (module, name) {
        ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensorV2),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensorV3),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Some(Global::RebuildParameter)
        }
        ("torch._tensor", "_rebuild_from_type_v2") => Some(Global::RebuildFromType),
        ("torch", "Size") => Some(Global::Size),
        ("torch" | "torch.storage", "UntypedStorage" | "_UntypedStorage") => Some(Global::UntypedStorage),
        ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => Some(Global::Class),
        ("torch", "device") | ("builtins" | "__builtin__", "set" | "frozenset") | ("_codecs", "encode") => {
            Some(Global::Opaque)
        }
        ("torch" | "torch.cuda", _) => {
            storage(name).map(Global::Storage).or_else(|| ScalarType::from_name(name).map(Global::DType))
        }
        _ => None,
    };
    match known {
        Some(global) => Ok(global),
        None => Err(refused(module, name)),
    }
}

fn storage(name: &str) -> Option<ScalarType> {
    Some(match name {
        "FloatStorage" => ScalarType::F32,
        "DoubleStorage" => ScalarType::F64,
        "HalfStorage" => ScalarType::F16,
        "BFloat16Storage" => ScalarType::BF16,
        "LongStorage" => ScalarType::I64,
        "IntStorage" => ScalarType::I32,
        "ShortStorage" => ScalarType::I16,
        "CharStorage" => ScalarType::I8,
        "ByteStorage" => ScalarType::U8,
        "BoolStorage" => ScalarType::Bool,
        _ => return None,
    })
}

/// The refusal of a global.
pub(super) fn refused(module: &str, name: &str) -> Error {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    let (module, name) = (clean(module), clean(name));
    if module.starts_with("torch.nn.") || module == "__main__" || module.starts_with("torchvision.") {
        return whole_model(&format!("{module}.{name}"));
    }
    let types = ["uint", "float8", "complex", "qint", "quint", "bits"];
    if module.starts_with("torch") && (name.ends_with("Storage") || types.iter().any(|t| name.starts_with(t)))
    {
        return Error::new(
            ErrorKind::Model,
            "TB0364",
            format!("refused: tensors of torch.{name} are not supported"),
        )
        .with_help("convert the tensors before saving, to float32 for instance");
    }
    Error::new(ErrorKind::Model, "TB0363", format!("refused: the pickle calls {module}.{name}")).with_help(
        "a state dict holds tensors only; save one with torch.save(model.state_dict(), path) from a source that you trust",
    )
}

/// The refusal of a file that holds a whole model and not its state dict.
pub(super) fn whole_model(what: &str) -> Error {
    Error::new(
        ErrorKind::Model,
        "TB0365",
        format!("refused: the file holds a whole model ({what}), not a state dict"),
    )
    .with_help("save the weights alone: torch.save(model.state_dict(), path)")
}
