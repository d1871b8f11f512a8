//! The fields of a job, by the API's published description (v1b3): a request with any other, or one of another type, would be
//! refused by the service.

use serde_json::Value;

/// A field's type.
#[derive(Clone, Copy)]
enum Is {
    Text,
    /// One of these.
    One(&'static [&'static str]),
    /// A 32-bit number.
    Number,
    Flag,
    Texts,
    /// An object whose values are texts.
    Map,
    /// An object of any kind.
    Any,
    A(&'static str),
    Many(&'static str),
}

type Fields = &'static [(&'static str, Is)];

const SCHEMAS: &[(&str, Fields)] = &[
    (
        "Job",
        &[
            ("name", Is::Text),
            ("projectId", Is::Text),
            ("location", Is::Text),
            ("clientRequestId", Is::Text),
            ("type", Is::One(&["JOB_TYPE_BATCH", "JOB_TYPE_STREAMING"])),
            ("environment", Is::A("Environment")),
            ("steps", Is::Many("Step")),
            ("replaceJobId", Is::Text),
            ("transformNameMapping", Is::Map),
            ("labels", Is::Map),
            ("requestedState", Is::One(&["JOB_STATE_CANCELLED", "JOB_STATE_DRAINING"])),
        ],
    ),
    ("Step", &[("kind", Is::Text), ("name", Is::Text), ("properties", Is::Any)]),
    (
        "Environment",
        &[
            ("tempStoragePrefix", Is::Text),
            ("experiments", Is::Texts),
            ("serviceOptions", Is::Texts),
            ("serviceKmsKeyName", Is::Text),
            ("serviceAccountEmail", Is::Text),
            ("workerPools", Is::Many("WorkerPool")),
            ("userAgent", Is::Any),
            ("version", Is::Any),
            ("sdkPipelineOptions", Is::Any),
            ("workerRegion", Is::Text),
            ("workerZone", Is::Text),
            ("flexResourceSchedulingGoal", Is::One(&["FLEXRS_SPEED_OPTIMIZED", "FLEXRS_COST_OPTIMIZED"])),
        ],
    ),
    (
        "WorkerPool",
        &[
            ("kind", Is::Text),
            ("numWorkers", Is::Number),
            ("packages", Is::Many("Package")),
            ("machineType", Is::Text),
            ("diskSizeGb", Is::Number),
            ("diskType", Is::Text),
            ("dataDisks", Is::Many("Disk")),
            ("autoscalingSettings", Is::A("AutoscalingSettings")),
            ("network", Is::Text),
            ("subnetwork", Is::Text),
            ("workerHarnessContainerImage", Is::Text),
            ("numThreadsPerWorker", Is::Number),
            ("ipConfiguration", Is::One(&["WORKER_IP_PUBLIC", "WORKER_IP_PRIVATE"])),
            ("sdkHarnessContainerImages", Is::Many("SdkHarnessContainerImage")),
        ],
    ),
    ("Package", &[("name", Is::Text), ("location", Is::Text), ("sha256", Is::Text)]),
    ("Disk", &[("sizeGb", Is::Number), ("diskType", Is::Text), ("mountPoint", Is::Text)]),
    (
        "AutoscalingSettings",
        &[
            ("algorithm", Is::One(&["AUTOSCALING_ALGORITHM_NONE", "AUTOSCALING_ALGORITHM_BASIC"])),
            ("maxNumWorkers", Is::Number),
        ],
    ),
    (
        "SdkHarnessContainerImage",
        &[
            ("containerImage", Is::Text),
            ("useSingleCorePerContainer", Is::Flag),
            ("environmentId", Is::Text),
            ("capabilities", Is::Texts),
        ],
    ),
];

/// Fails where a value is not of that schema.
pub fn check(schema: &str, value: &Value) {
    let (_, fields) = SCHEMAS.iter().find(|(name, _)| *name == schema).unwrap();
    let object = value.as_object().unwrap_or_else(|| panic!("{schema} is no object: {value}"));
    for (name, value) in object {
        let Some((_, is)) = fields.iter().find(|(field, _)| field == name) else {
            panic!("{schema} has no field `{name}`");
        };
        let fits = match *is {
            Is::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Is::One(known) => value.as_str().is_some_and(|text| known.contains(&text)),
            Is::Number => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            Is::Flag => value.is_boolean(),
            Is::Texts => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
            Is::Map => value.as_object().is_some_and(|all| all.values().all(Value::is_string)),
            Is::Any => value.is_object(),
            Is::A(inner) => {
                check(inner, value);
                true
            }
            Is::Many(inner) => {
                value.as_array().unwrap().iter().for_each(|one| check(inner, one));
                true
            }
        };
        assert!(fits, "{schema}.{name} is not what the API wants: {value}");
    }
}
