//! The events of a shop: its products, its customers, and orders with their payments and shipments.
//!
//! Names and numbers follow from the number of the first order. Only ids of events and of correlations are new in each
//! run, because the service recognises an event by its id.

use std::collections::VecDeque;

use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::event_id_at;
use crate::clock::Clock;

/// The products that exist, with their prices in cents.
const PRODUCTS: [(&str, u64); 12] = [
    ("desk-lamp", 4_990),
    ("oak-desk", 38_900),
    ("office-chair", 21_950),
    ("usb-cable", 1_290),
    ("wall-shelf", 7_450),
    ("blue-mug", 1_190),
    ("notebook", 690),
    ("monitor-arm", 8_900),
    ("keyboard", 7_990),
    ("headphones", 14_900),
    ("plant-pot", 2_350),
    ("paper-bin", 1_850),
];
const NAMES: [&str; 10] = [
    "A. Keller",
    "M. Rossi",
    "J. Dubois",
    "S. Novak",
    "L. Jensen",
    "P. Silva",
    "E. Moreau",
    "T. Weber",
    "K. Sato",
    "R. Ito",
];
const CITIES: [&str; 8] = ["Basel", "Lyon", "Turin", "Ghent", "Graz", "Porto", "Bergen", "Brno"];
const CARRIERS: [&str; 3] = ["Post", "Rail Parcel", "Courier"];
const CUSTOMERS: u64 = 40;

/// The first order of an empty store is `ord-1001`.
const FIRST_NUMBER: u64 = 1_001;

/// An event to append.
#[derive(Debug)]
pub struct DemoEvent {
    pub aggregate_type: &'static str,
    pub aggregate_id: String,
    /// Whether the stream begins with this event.
    pub is_first: bool,
    pub body: EventBody,
}

/// The members of an event in a request.
#[derive(Debug, Serialize)]
pub struct EventBody {
    pub event_id: Uuid,
    pub event_type: &'static str,
    event_data: Value,
    metadata: Value,
    pub correlation_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<Uuid>,
}

/// Events that are appended in one step.
pub type Step = Vec<DemoEvent>;

/// A shop, which receives orders.
pub struct Shop {
    random: Rng,
    /// The number that the ids of the products and of the customers begin with.
    first_number: u64,
    next_order: u64,
}

/// The events of one correlation.
struct Process {
    correlation_id: Uuid,
    user: String,
}

impl Process {
    fn new(user: String) -> Self {
        Self { correlation_id: new_id(), user }
    }

    /// Returns an event, whose cause is the event with the id `cause`.
    fn event(
        &self,
        (aggregate_type, aggregate_id): (&'static str, &str),
        event_type: &'static str,
        event_data: Value,
        cause: Option<Uuid>,
    ) -> DemoEvent {
        let body = EventBody {
            event_id: new_id(),
            event_type,
            event_data,
            metadata: json!({"user": self.user, "service": format!("{}s", aggregate_type.to_ascii_lowercase())}),
            correlation_id: self.correlation_id,
            causation_id: cause,
        };
        DemoEvent { aggregate_type, aggregate_id: aggregate_id.to_owned(), is_first: false, body }
    }
}

fn new_id() -> Uuid {
    event_id_at(Clock::system().now())
}

/// Marks an event as the first one of its stream.
fn first(event: DemoEvent) -> DemoEvent {
    DemoEvent { is_first: true, ..event }
}

impl Shop {
    /// Creates a shop for a store whose last position is `head`. The ids of its streams have numbers that no earlier
    /// demo has used: each order takes a number, and more positions than one.
    pub fn new(head: u64) -> Self {
        let first_number = FIRST_NUMBER + head;
        Self { random: Rng::with_seed(first_number), first_number, next_order: first_number }
    }

    /// Returns the id of the next order.
    pub fn next_order_id(&self) -> String {
        format!("ord-{}", self.next_order)
    }

    /// Returns the steps that add the products and register the customers, one for each stream.
    pub fn opening(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, (name, price)) in PRODUCTS.iter().enumerate() {
            let id = self.product_id(index);
            let stream = ("Product", id.as_str());
            let process = Process::new("buyer-1".to_owned());
            let added = first(process.event(stream, "ProductAdded", json!({"name": name, "price_cents": price}), None));
            let cause = Some(added.body.event_id);
            let received = json!({"quantity": self.random.u64(50..500), "warehouse": self.one_of(&CITIES)});
            let mut step = vec![added, process.event(stream, "StockReceived", received, cause)];
            if self.random.u8(0..2) == 0 {
                let raised = json!({"price_cents": price + price / 20});
                step.push(process.event(stream, "PriceChanged", raised, cause));
            }
            steps.push(step);
        }
        for number in 0..CUSTOMERS {
            let id = self.customer_id(number);
            let stream = ("Customer", id.as_str());
            let process = Process::new(id.clone());
            let data = json!({"name": self.one_of(&NAMES), "city": self.one_of(&CITIES)});
            let registered = first(process.event(stream, "CustomerRegistered", data, None));
            let cause = Some(registered.body.event_id);
            let mut step = vec![registered];
            if self.random.u8(0..4) == 0 {
                let moved = json!({"city": self.one_of(&CITIES)});
                step.push(process.event(stream, "AddressChanged", moved, cause));
            }
            steps.push(step);
        }
        steps
    }

    /// Returns the steps of the next order, from its placement to its delivery. Each event is caused by an earlier one.
    pub fn order(&mut self) -> VecDeque<Step> {
        let number = self.next_order;
        self.next_order += 1;
        let customer = self.random.u64(0..CUSTOMERS);
        let customer = self.customer_id(customer);
        let (order_id, payment_id, shipment_id) =
            (format!("ord-{number}"), format!("pay-{number}"), format!("shp-{number}"));
        let order = ("Order", order_id.as_str());
        let payment = ("Payment", payment_id.as_str());
        let shipment = ("Shipment", shipment_id.as_str());
        let process = Process::new(customer.clone());
        let mut steps = VecDeque::new();
        // Adds a step with one event, and returns its id.
        let add = |steps: &mut VecDeque<Step>, event: DemoEvent| {
            let id = Some(event.body.event_id);
            steps.push_back(vec![event]);
            id
        };

        let placed = first(process.event(order, "OrderPlaced", json!({"customer": customer}), None));
        let cause = Some(placed.body.event_id);
        let mut step = vec![placed];
        let (mut amount, mut items) = (0, Vec::new());
        for _ in 0..self.random.u8(2..5) {
            let product = self.random.usize(0..PRODUCTS.len());
            let (price, quantity, product) = (PRODUCTS[product].1, self.random.u64(1..4), self.product_id(product));
            amount += price * quantity;
            let data = json!({"product": product, "quantity": quantity, "price_cents": price});
            step.push(process.event(order, "ItemAdded", data, cause));
            items.push((product, quantity, price));
        }
        if self.random.u8(0..4) == 0
            && let Some((product, quantity, price)) = items.pop()
        {
            amount -= price * quantity;
            let data = json!({"product": product, "quantity": quantity, "price_cents": price});
            step.push(process.event(order, "ItemRemoved", data, cause));
        }
        steps.push_back(step);

        let method = self.one_of(&["card", "transfer", "invoice"]);
        let data = json!({"order": order_id, "amount_cents": amount, "method": method});
        let cause = add(&mut steps, first(process.event(payment, "PaymentRequested", data, cause)));
        if self.random.u8(0..10) == 0 {
            let data = json!({"order": order_id, "reason": "insufficient funds"});
            let cause = add(&mut steps, process.event(payment, "PaymentRefused", data, cause));
            add(&mut steps, process.event(order, "OrderCancelled", json!({"reason": "payment refused"}), cause));
            return steps;
        }
        let data = json!({"order": order_id, "reference": format!("ch_{:08x}", self.random.u32(..))});
        let cause = add(&mut steps, process.event(payment, "PaymentCaptured", data, cause));
        let cause = add(&mut steps, process.event(order, "OrderPaid", json!({"payment": payment_id}), cause));

        let data = json!({"order": order_id, "warehouse": self.one_of(&CITIES)});
        let prepared = first(process.event(shipment, "ShipmentPrepared", data, cause));
        let mut step = Vec::new();
        for (product, quantity, _) in &items {
            let data = json!({"order": order_id, "quantity": quantity});
            step.push(process.event(("Product", product.as_str()), "StockReserved", data, cause));
        }
        let paid = cause;
        let cause = Some(prepared.body.event_id);
        step.push(prepared);
        steps.push_back(step);
        let tracking = format!("99.{:02}.{number:06}", self.random.u8(0..100));
        let data = json!({"carrier": self.one_of(&CARRIERS), "tracking": tracking});
        let cause = add(&mut steps, process.event(shipment, "ParcelHandedOver", data, cause));
        let points = json!({"order": order_id, "points": amount / 1_000});
        steps.push_back(vec![
            process.event(order, "OrderShipped", json!({"shipment": shipment_id}), cause),
            process.event(("Customer", customer.as_str()), "LoyaltyPointsGranted", points, paid),
        ]);
        if self.random.u8(0..10) < 7 {
            let data = json!({"signed_by": self.one_of(&NAMES)});
            let cause = add(&mut steps, process.event(shipment, "ParcelDelivered", data, cause));
            add(&mut steps, process.event(order, "OrderDelivered", json!({"shipment": shipment_id}), cause));
        }
        steps
    }

    fn product_id(&self, index: usize) -> String {
        format!("{}-{}", PRODUCTS[index].0, self.first_number)
    }

    fn customer_id(&self, index: u64) -> String {
        format!("cus-{}", self.first_number + index)
    }

    fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.random.usize(0..texts.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(shop: &mut Shop) -> Vec<(String, Value)> {
        let steps = shop.opening().into_iter().chain((0..20).flat_map(|_| shop.order()).collect::<Vec<_>>());
        steps.flatten().map(|event| (event.aggregate_id, event.body.event_data)).collect()
    }

    #[test]
    fn the_data_follow_from_the_head_of_the_store() {
        assert_eq!(data(&mut Shop::new(0)), data(&mut Shop::new(0)));
        let (empty, used) = (data(&mut Shop::new(0)), data(&mut Shop::new(3_000)));
        assert!(empty.iter().all(|(id, _)| used.iter().all(|(other, _)| id != other)));
    }
}
