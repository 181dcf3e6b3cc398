package com.dodopayments.ingestion

import com.dodopayments.ingestion.native.AlarmListener
import com.dodopayments.ingestion.native.Failure
import com.dodopayments.ingestion.native.NativeBatch
import com.dodopayments.ingestion.native.NativeIngestion
import com.dodopayments.ingestion.native.NativeReceipt
import java.time.Instant
import java.util.Collections
import java.util.WeakHashMap
import kotlin.time.Duration

/**
 * The options of a client. Those without a parameter of their own go into [options], by the names of the documentation:
 * the core defines them, and refuses what it does not know. One that is `null` counts as absent.
 */
public class IngestionConfig(
    apiKey: String? = null,
    environment: String? = null,
    baseUrl: String? = null,
    eventName: String? = null,
    options: Map<String, Any?> = emptyMap(),
    /**
     * Hears what an operator should hear of, by kind and message; the log of the platform, if absent. Called on the engine's
     * thread or on that of a track verb. It must not block.
     */
    internal val onAlarm: (kind: String, message: String) -> Unit = ::log,
) {
    internal val settings =
        listOf("api_key" to apiKey, "environment" to environment, "base_url" to baseUrl, "event_name" to eventName)
            .plus(options.toList())
            .mapNotNull { (name, value) -> value?.let { setting(name, it) } }
}

private val logger = System.getLogger("com.dodopayments.ingestion")

private fun log(kind: String, message: String): Unit = logger.log(System.Logger.Level.WARNING, "{0}: {1}", kind, message)

/** The clients that are still open, for the end of the program. */
private object AtExit {
    private val open = Collections.synchronizedSet(Collections.newSetFromMap(WeakHashMap<NativeIngestion, Boolean>()))

    init {
        Runtime.getRuntime().addShutdownHook(Thread { close() })
    }

    fun add(native: NativeIngestion) = open.add(native)

    fun remove(native: NativeIngestion) = open.remove(native)

    /** All at once: a server that is dead takes no time of the others. */
    private fun close() {
        val closing = synchronized(open) { open.toList() }.map { native -> Thread({ close(native) }, "dodo-ingestion-exit") }
        for (thread in closing) {
            try {
                thread.start()
            } catch (_: OutOfMemoryError) {
                thread.run() // on this one: the system has no more
            }
        }
        closing.forEach(Thread::join)
    }

    private fun close(native: NativeIngestion) {
        try {
            native.finishAtExit()
        } catch (failure: Failure.Core) {
            tell(failure.reason)
        } catch (failure: Throwable) {
            tell(failure.toString())
        }
    }

    /** Not to a log: it may end in a hook of its own, beside this one, as that of the JDK does. */
    private fun tell(failure: String) = System.err.println("com.dodopayments.ingestion: at exit: $failure")
}

/** A client of the billing API: accepts calls in microseconds and delivers them in batches. */
public class Ingestion(
    config: IngestionConfig,
) : AutoCloseable {
    private val native: NativeIngestion =
        calling {
            NativeIngestion.open(
                config.settings,
                object : AlarmListener {
                    override fun told(kind: String, message: String) = config.onAlarm(kind, message)
                },
            )
        }

    init {
        AtExit.add(native)
    }

    /** Accepts one API call for billing. Does not wait for the network. */
    public fun trackApiCall(
        customerId: String,
        metadata: Map<String, Any?> = emptyMap(),
        eventId: String? = null,
        eventName: String? = null,
        timestamp: Instant? = null,
    ): Receipt {
        val call = call(customerId, metadata, eventId, eventName, timestamp)
        return Receipt(calling { native.track(call) })
    }

    /** Opens a batch. */
    public fun createBatch(
        maxSize: Int? = null,
        flushInterval: Duration? = null,
    ): Batch {
        if (maxSize != null && maxSize < 0) throw unconvertible("configuration", "max_size", "$maxSize is less than nothing")
        val interval = flushInterval?.let { length("flush_interval", it) }
        return Batch(calling { native.createBatch(maxSize?.toULong(), interval) }, native)
    }

    /** Makes everything accepted so far due and waits until it is settled. */
    public suspend fun flush(timeout: Duration? = null): Unit = waiting { native.flush(limit(timeout)) }

    /** The blocking form of [flush]. */
    public fun blockingFlush(timeout: Duration? = null): Unit = calling { native.blockingFlush(limit(timeout)) }

    /** Flushes and lets go. What is left stays spooled. If it is cancelled before that, the client stays open. */
    public suspend fun close(timeout: Duration?) {
        waiting { native.finish(limit(timeout)) }
        AtExit.remove(native) // not before: a call that is cancelled or refused has closed nothing
    }

    /** The blocking form of [close], for `use`. */
    override fun close() {
        calling { native.blockingFinish(null) }
        AtExit.remove(native)
    }

    /** Counts of what has happened so far, by name. */
    public fun stats(): Map<String, Long> = native.stats().mapValues { (_, count) -> count.toLong() }
}

/** Accepts one API call for billing. Does not wait for the network. */
public fun trackApiCall(
    ingestion: Ingestion,
    customerId: String,
    metadata: Map<String, Any?> = emptyMap(),
    eventId: String? = null,
    eventName: String? = null,
    timestamp: Instant? = null,
): Receipt = ingestion.trackApiCall(customerId, metadata, eventId, eventName, timestamp)

/** Opens a batch. */
public fun createBatch(
    ingestion: Ingestion,
    maxSize: Int? = null,
    flushInterval: Duration? = null,
): Batch = ingestion.createBatch(maxSize, flushInterval)

/** Calls that are due together: when there are `maxSize`, or the oldest is `flushInterval` old. */
public class Batch internal constructor(
    private val native: NativeBatch,
    /** Held, so that the end of the program still knows the client. */
    private val ingestion: NativeIngestion,
) : AutoCloseable {
    /** Accepts one API call for billing. Does not wait for the network. */
    public fun add(
        customerId: String,
        metadata: Map<String, Any?> = emptyMap(),
        eventId: String? = null,
        eventName: String? = null,
        timestamp: Instant? = null,
    ) {
        val call =
            try {
                call(customerId, metadata, eventId, eventName, timestamp)
            } catch (invalid: IngestionException) {
                native.refuse(invalid.message)
                throw invalid
            }
        calling { native.add(call) }
    }

    /** Makes everything accepted so far due and waits until it is settled. */
    public suspend fun flush(timeout: Duration? = null): Unit = waiting { native.flush(limit(timeout)) }

    /** The blocking form of [flush]. */
    public fun blockingFlush(timeout: Duration? = null): Unit = calling { native.blockingFlush(limit(timeout)) }

    /** Flushes and ends the batch. What is left stays spooled. */
    public suspend fun cleanup(timeout: Duration? = null): Unit = waiting { native.cleanup(limit(timeout)) }

    /** The blocking form of [cleanup], for `use`. */
    override fun close(): Unit = calling { native.blockingCleanup(null) }
}

/** The proof that a call was accepted. */
public class Receipt internal constructor(
    private val native: NativeReceipt,
) {
    /** The call's idempotency key. */
    public val eventId: String get() = native.eventId()

    /** Returns when the billing API has acknowledged the call; throws why it never will. */
    public suspend fun delivered(timeout: Duration? = null): Unit = waiting { native.delivered(limit(timeout)) }

    /** The blocking form of [delivered]. */
    public fun blockingDelivered(timeout: Duration? = null): Unit = calling { native.blockingDelivered(limit(timeout)) }
}

private fun limit(timeout: Duration?): java.time.Duration? = timeout?.let { length("timeout", it) }
