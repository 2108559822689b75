//! Integers: every one is 64 bits wide, and has its schema in place.
//!
//! utoipa makes a component of each alias of an integer type. Generators would make classes with the name of a Rust
//! type of it.

use utoipa::openapi::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayItems, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};

use crate::http::openapi::operations::operations;

/// The components to replace.
const INTEGERS: [&str; 3] = ["i16", "i32", "i64"];

/// Replaces the components of integers, and widens all others.
pub fn inline_integers(document: &mut OpenApi) {
    let components = document.components.as_mut().expect("the document has schemas");
    components.schemas.retain(|name, _| !INTEGERS.contains(&name.as_str()));
    components.schemas.values_mut().for_each(inline);
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            operation.parameters.iter_mut().flatten().for_each(|parameter| {
                if let RefOr::T(parameter) = parameter {
                    parameter.schema.iter_mut().for_each(inline);
                }
            });
        }
    }
}

fn inline(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
            if INTEGERS.contains(&name) {
                let description = std::mem::take(&mut reference.description);
                let integer = ObjectBuilder::new().schema_type(Type::Integer).format(Some(int64()));
                let integer = integer.description((!description.is_empty()).then_some(description));
                *schema = RefOr::T(Schema::Object(integer.build()));
            }
        }
        RefOr::T(Schema::Object(object)) => {
            if is_integer(&object.schema_type) {
                object.format = Some(int64());
            }
            object.properties.values_mut().for_each(inline);
        }
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                inline(items);
            }
        }
        RefOr::T(Schema::AllOf(all)) => all.items.iter_mut().for_each(inline),
        RefOr::T(Schema::OneOf(one)) => one.items.iter_mut().for_each(inline),
        RefOr::T(Schema::AnyOf(any)) => any.items.iter_mut().for_each(inline),
        RefOr::T(_) => {}
    }
}

fn is_integer(schema_type: &SchemaType) -> bool {
    match schema_type {
        SchemaType::Type(kind) => *kind == Type::Integer,
        SchemaType::Array(kinds) => kinds.contains(&Type::Integer),
        SchemaType::AnyValue => false,
    }
}

fn int64() -> SchemaFormat {
    SchemaFormat::KnownFormat(KnownFormat::Int64)
}
