package com.dodopayments.ingestion

import com.dodopayments.ingestion.native.AlarmListener
import com.dodopayments.ingestion.native.NativeBatch
import com.dodopayments.ingestion.native.NativeIngestion
import kotlinx.coroutines.runBlocking
import java.time.Instant
import java.util.Collections
import java.util.WeakHashMap
import kotlin.time.Duration
import kotlin.time.toKotlinDuration

/**
 * The options of a client. Those without a parameter of their own go into [options], by the names of the documentation:
 * the core defines them, and refuses what it does not know. One that is `null` counts as absent; one that is given in both
 * places is refused.
 */
public class IngestionConfig
@Throws(IngestionException::class)
constructor(
    apiKey: String? = null,
    environment: String? = null,
    baseUrl: String? = null,
    eventName: String? = null,
    options: Map<String, Any?> = emptyMap(),
    /**
     * Hears what an operator should hear of, by kind and message; the log of the platform, if absent. Called on the engine's
     * thread or on that of a track verb. It must not block. What it throws is logged.
     */
    internal val onAlarm: (kind: String, message: String) -> Unit = ::log,
) {
    internal val settings =
        listOf("api_key" to apiKey, "environment" to environment, "base_url" to baseUrl, "event_name" to eventName)
            .onEach { (name, value) ->
                if (value != null && options[name] != null) throw unconvertible("configuration", name, "is given twice")
            }.plus(options.toList())
            .mapNotNull { (name, value) -> value?.let { setting(name, it) } }
}

private val logger = System.getLogger("com.dodopayments.ingestion")

private fun log(kind: String, message: String): Unit = logger.log(System.Logger.Level.WARNING, "{0}: {1}", kind, message)

/** The clients that are still open, for the end of the program. */
private object AtExit {
    private val open = Collections.synchronizedSet(Collections.newSetFromMap(WeakHashMap<NativeIngestion, Boolean>()))

    init {
        try {
            Runtime.getRuntime().addShutdownHook(Thread { flush() })
        } catch (_: IllegalStateException) {
            // The end has begun. What is tracked now is for the next process, or for a close.
        }
    }

    fun add(native: NativeIngestion) = open.add(native)

    fun remove(native: NativeIngestion) = open.remove(native)

    /**
     * All at once: a server that is dead takes no time of the others. None is closed: other hooks run beside this one, such
     * as that of a server which answers its last requests.
     */
    private fun flush() {
        val flushing = synchronized(open) { open.toList() }.map { native -> Thread({ flush(native) }, "dodo-ingestion-exit") }
        for (thread in flushing) {
            try {
                thread.start()
            } catch (_: OutOfMemoryError) {
                thread.run() // on this one: the system has no more
            }
        }
        flushing.forEach(Thread::join)
    }

    private fun flush(native: NativeIngestion) {
        try {
            calling { native.flushAtExit() }
        } catch (_: IngestionException.Closed) {
            // By another hook.
        } catch (failure: IngestionException) {
            tell(failure.message)
        } catch (failure: Throwable) {
            tell(failure.toString())
        }
    }

    /** Not to a log: it may end in a hook of its own, beside this one, as that of the JDK does. */
    private fun tell(failure: String) = System.err.println("com.dodopayments.ingestion: at exit: $failure")
}

/** A client of the billing API: accepts calls in microseconds and delivers them in batches. */
public class Ingestion
@Throws(IngestionException::class)
constructor(
    config: IngestionConfig,
) : AutoCloseable {
    private val native: NativeIngestion =
        calling {
            NativeIngestion.open(
                config.settings,
                object : AlarmListener {
                    override fun told(kind: String, message: String) =
                        try {
                            config.onAlarm(kind, message)
                        } catch (failure: Throwable) {
                            logger.log(System.Logger.Level.WARNING, "onAlarm failed when told $kind: $message", failure)
                        }
                },
            )
        }

    init {
        AtExit.add(native)
    }

    /** Accepts one API call for billing. Does not wait for the network. */
    @Throws(IngestionException::class)
    public fun trackApiCall(
        customerId: String,
        metadata: Map<String, Any?> = emptyMap(),
        eventId: String? = null,
        eventName: String? = null,
        timestamp: Instant? = null,
    ): Receipt {
        val call = converted(native) { call(customerId, metadata, eventId, eventName, timestamp) }
        return Receipt(native, calling { native.track(call) })
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
    public fun blockingFlush(timeout: Duration? = null): Unit = runBlocking { flush(timeout) }

    /** Flushes and lets go. What is left stays spooled. If it is cancelled in its flush, the client stays open. */
    public suspend fun close(timeout: Duration?) {
        waiting { native.finish(limit(timeout)) }
        AtExit.remove(native) // not before: a call that is cancelled or refused has closed nothing
    }

    /** The blocking form of [close]. If its flush is interrupted, the client stays open. */
    public fun blockingClose(timeout: Duration? = null): Unit = runBlocking { close(timeout) }

    /** [blockingClose] with its default. */
    @Throws(IngestionException::class, InterruptedException::class)
    override fun close(): Unit = blockingClose()

    /** Closes the client after [block]; if that failed, within `exit_timeout`. */
    public inline fun <T> use(block: (Ingestion) -> T): T = using({ block(this) }) { failed -> leave(failed) }

    @PublishedApi
    internal fun leave(failed: Boolean): Unit = blockingClose(native.limitAfter(failed))

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
    /** Also held so that the end of the program still knows the client. */
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
        val call = converted(ingestion) { call(customerId, metadata, eventId, eventName, timestamp) }
        calling { native.add(call) }
    }

    /** Makes everything accepted so far due and waits until it is settled. */
    public suspend fun flush(timeout: Duration? = null): Unit = waiting { native.flush(limit(timeout)) }

    /** The blocking form of [flush]. */
    public fun blockingFlush(timeout: Duration? = null): Unit = runBlocking { flush(timeout) }

    /** Flushes and ends the batch. What is left stays spooled. */
    public suspend fun cleanup(timeout: Duration? = null): Unit = waiting { native.cleanup(limit(timeout)) }

    /** The blocking form of [cleanup]. */
    public fun blockingCleanup(timeout: Duration? = null): Unit = runBlocking { cleanup(timeout) }

    /** [blockingCleanup] with its default. */
    override fun close(): Unit = blockingCleanup()

    /** Cleans the batch up after [block]; if that failed, within the client's `exit_timeout`. */
    public inline fun <T> use(block: (Batch) -> T): T = using({ block(this) }) { failed -> leave(failed) }

    @PublishedApi
    internal fun leave(failed: Boolean): Unit = blockingCleanup(ingestion.limitAfter(failed))
}

/** The proof that a call was accepted. */
public class Receipt internal constructor(
    private val native: NativeIngestion,
    private val ticket: String,
) {
    /** The call's idempotency key. */
    public val eventId: String get() = calling { native.eventId(ticket) }

    /** Returns when the billing API has acknowledged the call; throws why it never will. */
    public suspend fun delivered(timeout: Duration? = null): Unit = waiting { native.delivered(ticket, limit(timeout)) }

    /** The blocking form of [delivered]. */
    public fun blockingDelivered(timeout: Duration? = null): Unit = runBlocking { delivered(timeout) }
}

/** Counts and tells a call that cannot be converted. */
private inline fun <T> converted(client: NativeIngestion, convert: () -> T): T =
    try {
        convert()
    } catch (invalid: IngestionException) {
        client.refuse(invalid.message)
        throw invalid
    }

/** As [kotlin.use], but [close] learns whether [block] failed. */
@PublishedApi
internal inline fun <T> using(block: () -> T, crossinline close: (failed: Boolean) -> Unit): T {
    var failed = false
    return AutoCloseable { close(failed) }.use {
        try {
            block()
        } catch (failure: Throwable) {
            failed = true
            throw failure
        }
    }
}

private fun NativeIngestion.limitAfter(failed: Boolean): Duration? = if (failed) exitTimeout().toKotlinDuration() else null

private fun limit(timeout: Duration?): java.time.Duration? = timeout?.let { length("timeout", it) }
