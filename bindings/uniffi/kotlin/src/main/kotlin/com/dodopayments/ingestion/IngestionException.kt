package com.dodopayments.ingestion

import com.dodopayments.ingestion.native.Failure
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/** What went wrong, by kind. */
public sealed class IngestionException(
    /** The kind, the same in every language. */
    public val kind: String,
    override val message: String,
    /** The option or the part of the event that is to blame, such as `metadata.endpoint`. */
    public val field: String?,
    /** The billing API's HTTP status, if it answered. */
    public val status: Int?,
    /** Whether the call may be billed in spite of the error. */
    public val mayBeBilled: Boolean,
    cause: Throwable?,
) : Exception(message, cause) {
    private constructor(failure: Failure.Core) : this(
        failure.kind,
        failure.reason,
        failure.field,
        failure.status?.toInt(),
        failure.mayBeBilled,
        failure,
    )

    /** An option is unknown, missing or out of range, or contradicts another. */
    public class Configuration internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The event breaks a limit of the billing API and was not accepted. */
    public class Validation internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The billing API does not take the key. */
    public class Authentication internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The billing API refused the call. */
    public class Rejected internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The call alone is larger than the billing API takes. */
    public class TooLarge internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The spool is full, and the call was not accepted. */
    public class Overflow internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The spool could not be written. */
    public class Storage internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The time given was not enough. What was accepted stays spooled. */
    public class Timeout internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The billing API could not be reached. */
    public class Network internal constructor(failure: Failure.Core) : IngestionException(failure)

    /** The client has been closed. */
    public class Closed internal constructor(failure: Failure.Core) : IngestionException(failure)

    internal companion object {
        fun of(failure: Failure.Core): IngestionException =
            when (failure.kind) {
                "configuration" -> Configuration(failure)
                "validation" -> Validation(failure)
                "authentication" -> Authentication(failure)
                "rejected" -> Rejected(failure)
                "too_large" -> TooLarge(failure)
                "overflow" -> Overflow(failure)
                "storage" -> Storage(failure)
                "timeout" -> Timeout(failure)
                "network" -> Network(failure)
                "closed" -> Closed(failure)
                else -> error("an error of the unknown kind ${failure.kind}: ${failure.reason}")
            }
    }
}

/** Calls the core; its failure is thrown as the exception of its kind. */
internal inline fun <T> calling(call: () -> T): T =
    try {
        call()
    } catch (failure: Failure.Core) {
        throw IngestionException.of(failure)
    }

/** Threads that no caller can keep busy, for what takes none of them for long. */
private val polling = Dispatchers.IO.limitedParallelism(64)

/**
 * Waits for the core, which wakes a wait on its own thread, holding a lock that the wait takes next. So the wait itself never
 * resumes right there, as that of a coroutine without a dispatcher would.
 */
internal suspend fun waiting(wait: suspend () -> Unit): Unit = calling { withContext(polling) { wait() } }

/** The failure for a value that cannot be converted, and so never reached the core. */
internal fun unconvertible(kind: String, field: String, message: String): IngestionException =
    IngestionException.of(Failure.Core(kind, "$field: $message", field, null, false))
