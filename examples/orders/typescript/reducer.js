({
  init: () => ({ status: 'new', customer: null, total: 0, paid: 0 }),
  OrderPlaced: (state, { event_data }) => ({ ...state, ...event_data, status: 'placed' }),
  PaymentReceived: (state, { event_data }) => ({ ...state, paid: state.paid + event_data.amount }),
  OrderPaid: (state) => ({ ...state, status: 'paid' }),
  OrderCancelled: (state, { event_data }) => ({ ...state, status: 'cancelled', reason: event_data.reason }),
})
