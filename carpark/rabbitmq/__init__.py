"""What speaks to RabbitMQ without Dramatiq: connections, queues as they are declared, the queue configurator."""
